"""A rented container: an address, a port and a password, and no root, screen or systemd on it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from cloudtrain.ssh.keys import fingerprint
from tests.support.account import Account, account
from tests.support.hosts import HostRoad

pytestmark = pytest.mark.road

CONFIG = """\
name: {{name}}
provider: ssh
hosts: [{{host}}]
environment: {{{{manager: venv, python: "{version}", torch: none}}}}
train:
  kind: script
  command: python train.py
  outputs: ["out/*.pt"]
""".format(version=f"{sys.version_info[0]}.{sys.version_info[1]}")
HIDDEN = ("screen", "rsync", "sudo", "systemctl")


@pytest.fixture
def poor(tmp_path: Path) -> Generator[Account]:
    """An account whose sessions find no screen, no rsync and no sudo."""
    programs = Path("/var/tmp") / f"ct-bin-{os.getpid()}"
    programs.mkdir(mode=0o755)
    for folder in ("/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            link = programs / program.name
            if program.name not in HIDDEN and not link.is_symlink():
                link.symlink_to(program)
    try:
        with account(tmp_path / "sshd", port=2222, path=str(programs)) as made:
            yield made
    finally:
        for link in programs.iterdir():
            link.unlink()
        programs.rmdir()


def listed(host: Account, **more: object) -> str:
    values: dict[str, object] = {
        "address": host.address,
        "port": host.port,
        "user": host.name,
        "fingerprint": fingerprint(host.host_key.public),
        **more,
    }
    return "{" + ", ".join(f'{key}: "{value}"' for key, value in values.items() if value is not None) + "}"


@pytest.fixture
def way(tmp_path: Path, poor: Account) -> Generator[HostRoad]:
    made = HostRoad(
        tmp_path / "road",
        tmp_path / "home",
        env={"CLOUDTRAIN_SSH_PASSWORD": poor.password},
        host=listed(poor),
        config=CONFIG,
    )
    yield made
    made.call("down", "--discard", "--stop-training", code=None)


def stored(folder: Path, secret: str) -> list[str]:
    """Every file below a folder that holds a secret."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in found if secret.encode() in path.read_bytes()]


def test_the_whole_road_with_a_password_and_without_root(way: HostRoad, poor: Account) -> None:
    (way.project / "big.bin").write_bytes(os.urandom(6_000_000))
    up = way.call("up", "-y")
    assert "apt-get install -y screen" in up.stderr
    assert "needs root" in up.stderr
    assert "no screen" in up.stderr
    assert "a reboot there starts nothing of ours again" in up.stderr
    way.wait_for_end()
    status = way.json("status")["result"]["training"]["session"]
    assert (status["state"], status["screen"]) == ("finished", "")
    assert way.call("logs").stdout.splitlines()[-1] == "last line"
    kinds = {one["kind"] for one in way.json("fetch-weights")["result"]["artifacts"]}
    assert {"best", "last"} <= kinds
    (way.project / "wait").touch()
    way.call("train")
    follow = way.start("attach")
    assert follow.stdout is not None
    assert follow.stdout.readline() == "first line\n"
    way.call("exec", "--", "sh", "-c", "cd cloudtrain/own-*/project && touch go")
    out, err = follow.communicate(timeout=60)
    assert "last line" in out
    assert "no screen" in err
    way.wait_for_end()
    assert way.call("ssh", code=None).returncode == 0
    way.call("down", "--remove")
    assert not (poor.home / "cloudtrain").exists()
    assert not (poor.home / ".cloudtrain").exists()
    assert stored(way.home, poor.password) == []
    assert stored(way.project, poor.password) == []
    assert poor.password not in poor.log
    assert "publickey" not in poor.log


def test_a_wrong_password_is_refused_once(way: HostRoad, poor: Account) -> None:
    way.env["CLOUDTRAIN_SSH_PASSWORD"] = "wrong"
    assert "refused the password" in way.call("up", "-y", code=4).stderr
    assert poor.log.count("Failed password") == 1


def test_no_password_and_nobody_to_ask(way: HostRoad, poor: Account) -> None:
    del way.env["CLOUDTRAIN_SSH_PASSWORD"]
    way.host = listed(poor, password="true").replace('"true"', "true")
    way.write()
    refused = way.call("up", "-y", code=2)
    assert "CLOUDTRAIN_SSH_PASSWORD" in refused.stderr


def test_it_is_asked_for_once_on_the_terminal_after_the_fingerprint(way: HostRoad, poor: Account) -> None:
    del way.env["CLOUDTRAIN_SSH_PASSWORD"]
    way.host = listed(poor, fingerprint=None)
    way.write()
    said = converse(way, ["up", "-y"], [("[y/N]", "y"), ("password for", poor.password)])
    assert fingerprint(poor.host_key.public) in said
    assert said.index("[y/N]") < said.index("password for")
    assert said.count("password for") == 1
    assert poor.password not in said
    way.env["CLOUDTRAIN_SSH_PASSWORD"] = poor.password
    way.wait_for_end()


def converse(way: HostRoad, args: list[str], answers: list[tuple[str, str]]) -> str:
    """Run a command on a terminal, answer its questions, and return all that it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(way.project)
        os.execve(sys.executable, [sys.executable, "-m", "cloudtrain", *args], way.environ())
    said, left, end = "", list(answers), time.monotonic() + 120
    seen = 0
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.5)
        if not ready:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        said += piece.decode("utf-8", "replace")
        if left and left[0][0] in said[seen:]:
            seen = len(said)
            os.write(terminal, left.pop(0)[1].encode() + b"\n")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    assert not left, said
    return said


@pytest.fixture
def rich(tmp_path: Path) -> Generator[Account]:
    """An account that finds everything, rsync among it."""
    with account(tmp_path / "rich", port=2222) as made:
        yield made


def test_openssh_gets_the_password_and_no_argument_list_does(tmp_path: Path, rich: Account) -> None:
    """Looked for in every process of this computer, while ssh pushes much and rsync what changed."""
    way = HostRoad(
        tmp_path / "road",
        tmp_path / "home",
        env={"CLOUDTRAIN_SSH_PASSWORD": rich.password},
        host=listed(rich),
        config=CONFIG,
    )
    big = way.project / "big.bin"
    big.write_bytes(os.urandom(20_000_000))
    lists = argument_lists_of(way.start("up", "-y"))
    assert [one for one in lists if one.startswith("ssh") and rich.name in one]
    assert not [one for one in lists if rich.password in one]
    way.wait_for_end()
    assert way.call("attach", code=2).stderr.count("finished")
    with big.open("r+b") as file:
        file.write(b"changed")
    lists = argument_lists_of(way.start("train"))
    assert [one for one in lists if one.startswith("rsync") and rich.name in one]
    assert not [one for one in lists if rich.password in one]
    way.wait_for_end()
    way.call("down")
    assert stored(way.home, rich.password) == []


def argument_lists_of(process: subprocess.Popen[str]) -> set[str]:
    """Return all argument lists of this computer's processes while one command runs to its end."""
    lists: set[str] = set()
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lists.add(entry.read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
        time.sleep(0.02)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return lists


def test_a_secret_is_not_answered_to_another_question(way: HostRoad, poor: Account) -> None:
    way.call("up", "-y")
    way.call("ssh", code=None)
    (helper,) = way.home.rglob("askpass")
    assert helper.stat().st_mode & 0o077 == 0
    environ = {**os.environ, "CLOUDTRAIN_ASKPASS": "secret", "CLOUDTRAIN_ASKPASS_FOR": "me@own-1"}
    for question, answer in (("me@own-1's password: ", "secret\n"), ("me@jump's password: ", "")):
        done = subprocess.run([helper, question], env=environ, capture_output=True, text=True, check=False)
        assert done.stdout == answer
    way.wait_for_end()
