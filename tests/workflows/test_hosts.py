"""Hosts of one's own by the installed command: shared ones, and ones behind another."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from cloudtrain.ssh.keys import fingerprint
from tests.support.account import Account, account
from tests.support.hosts import HostRoad, listed
from tests.support.sshd import Sshd, stopped

pytestmark = pytest.mark.road

UV = """\
name: {{name}}
provider: ssh
hosts: [{{host}}]
environment: {{{{manager: uv, python: "{version}", torch: none}}}}
train:
  kind: script
  command: python -c 'import os, sys; print(sys.prefix, flush=True); exec(open("train.py").read())'
  outputs: ["out/*.pt"]
""".format(version=f"{sys.version_info[0]}.{sys.version_info[1]}")


def roads(tmp_path: Path, sshd: Sshd) -> tuple[HostRoad, HostRoad]:
    """Two projects of two names, each on a computer of its own, with one host between them."""
    first = HostRoad(tmp_path / "one", tmp_path / "home-one", host=listed(sshd), name="helmets")
    second = HostRoad(tmp_path / "two", tmp_path / "home-two", host=listed(sshd), name="helmets-2")
    return first, second


def sessions(way: HostRoad) -> tuple[str, str]:
    session = way.json("status")["result"]["training"]["session"]
    return session["state"], session["run_dir"]


def test_two_runs_on_one_host_train_at_once_and_end_apart(tmp_path: Path, sshd: Sshd) -> None:
    first, second = roads(tmp_path, sshd)
    try:
        for way in (first, second):
            (way.project / "wait").touch()
            way.call("up", "-y")
        (one, its_folder), (two, other_folder) = sessions(first), sessions(second)
        assert (one, two) == ("running", "running")
        assert its_folder != other_folder
        seen = str(first.json("audit")["result"])
        assert "helmets-2" in seen
        first.call("down", "--stop-training", "--remove")
        assert sessions(second) == ("running", other_folder)
        (left,) = [path.name for path in sshd.home.glob("cloudtrain/*")]
        assert left.startswith("helmets-2")
        (sshd.home / "cloudtrain" / left / "project" / "go").touch()
        second.wait_for_end()
        assert sessions(second)[0] == "finished"
        second.call("down")
    finally:
        for way in (first, second):
            way.call("down", "--discard", "--stop-training", code=None)


def test_down_ends_what_ran_and_leaves_what_was_there(tmp_path: Path, sshd: Sshd) -> None:
    """A host has files and processes of its owner, which are nobody else's business."""
    (sshd.home / "thesis.txt").write_text("mine")
    first, _ = roads(tmp_path, sshd)
    try:
        (first.project / "wait").touch()
        first.call("up", "-y")
        first.call("exec", "--", "sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & echo $! >owners")
        first.call("down", "--stop-training", "--remove")
        assert Path(f"/proc/{(sshd.home / 'owners').read_text().strip()}").exists()
        assert (sshd.home / "thesis.txt").read_text() == "mine"
        assert not list(sshd.home.glob("cloudtrain*"))
    finally:
        first.call("down", "--discard", "--stop-training", code=None)


def test_the_whole_road_through_a_proxyjump(tmp_path: Path, sshd: Sshd) -> None:
    way = HostRoad(tmp_path / "road", tmp_path / "home", host="{address: inner}")
    with stopped(Sshd(tmp_path / "bastion", options="AllowTcpForwarding yes\n")) as bastion:
        known = tmp_path / "known"
        known.write_text(
            f"[127.0.0.1]:{bastion.port} {bastion.host_key.public}\n[127.0.0.1]:{sshd.port} {sshd.host_key.public}\n"
        )
        way.use_ssh_config(
            f"Host *\n  UserKnownHostsFile {known}\n"
            f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n  User {bastion.target.user}\n"
            f"  IdentityFile {bastion.target.key}\n"
            f"Host inner\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.target.user}\n"
            f"  IdentityFile {sshd.target.key}\n  ProxyJump bastion\n"
        )
        way.call("up", "-y")
        way.wait_for_end()
        kinds = {one["kind"] for one in way.json("fetch-weights")["result"]["artifacts"]}
        assert {"best", "last"} <= kinds
        assert way.call("exec", "--", "echo", "through").stdout == "through\n"
        assert bastion.handshakes() > 0
        way.call("down", "--remove")
        assert not (sshd.home / "cloudtrain").exists()


@pytest.fixture
def locked(tmp_path: Path) -> Generator[Account]:
    with account(tmp_path / "sshd", port=2222) as made:
        yield made


def test_uv_makes_the_environment_for_a_password_and_no_sudo(tmp_path: Path, locked: Account) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    assert os.access(uv, os.X_OK)
    (locked.home / ".cloudtrain" / "bin").mkdir(parents=True)
    shutil.copy(uv, locked.home / ".cloudtrain" / "bin" / "uv")
    for path in (locked.home / ".cloudtrain", *(locked.home / ".cloudtrain").rglob("*")):
        os.chown(path, locked.uid, locked.uid)
    host = f'{{address: "{locked.address}", port: 2222, user: {locked.name}, fingerprint: "{fingerprint(locked.host_key.public)}"}}'
    way = HostRoad(
        tmp_path / "road",
        tmp_path / "home",
        env={"CLOUDTRAIN_SSH_PASSWORD": locked.password},
        host=host,
        config=UV,
    )
    try:
        way.call("up", "-y")
        way.wait_for_end()
        lines = way.call("logs").stdout.splitlines()
        assert lines[0].endswith("/env")
        assert lines[-1] == "last line"
        way.call("down", "--remove")
        assert not (locked.home / "cloudtrain").exists()
    finally:
        way.call("down", "--discard", "--stop-training", code=None)
