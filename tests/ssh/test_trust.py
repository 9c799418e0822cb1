"""Whose key answers is settled before anything of ours is sent."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.errors import HostKeyMismatch
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh import keys, openssh
from cloudtrain.ssh.remote import connect
from tests.support.road import until
from tests.support.sshd import Sshd

ECDSA = (
    "ecdsa-sha2-nistp256 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRg"
    "g6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="
)


def attempts(sshd: Sshd) -> list[str]:
    """Everything in the server's log that tells of a user name or a key being offered."""
    until(lambda: not sshd.connections())  # a connection's last line comes when it ends
    words = ("Accepted", "Failed", "userauth", "publickey", "invalid user", "Postponed", "authenticating")
    return [line for line in sshd.log.read_text().splitlines() if any(word in line for word in words)]


def pin(sshd: Sshd, kind: str) -> None:
    target = sshd.target
    if kind == "wrong":
        keys.pin(target.known_hosts, target.alias, (keys.generate("other").public,))
    elif kind == "typed":
        keys.pin(target.known_hosts, target.alias, (ECDSA,))
    elif kind == "other alias":
        keys.pin(target.known_hosts, "another", (sshd.host_key.public,))
    elif kind == "address":
        keys.pin(target.known_hosts, f"[127.0.0.1]:{sshd.port}", (sshd.host_key.public,))
    else:
        target.known_hosts.unlink()


KINDS = ["wrong", "typed", "other alias", "address", "missing"]


@pytest.mark.parametrize("kind", KINDS)
def test_connect_refuses_before_authentication(sshd: Sshd, kind: str) -> None:
    pin(sshd, kind)
    with pytest.raises(HostKeyMismatch, match="nothing was sent"):
        connect(sshd.target)
    assert attempts(sshd) == []


@pytest.mark.parametrize("kind", KINDS)
def test_openssh_refuses_before_authentication(sshd: Sshd, kind: str, tmp_path: Path) -> None:
    pin(sshd, kind)
    ssh = subprocess.run(openssh.ssh(sshd.target, "true"), capture_output=True, text=True, check=False)
    assert ssh.returncode == 255
    assert "erification failed" in ssh.stderr
    rsync = ["rsync", "-e", openssh.rsync_shell(sshd.target), "--", f"127.0.0.1:{sshd.home}/x", str(tmp_path)]
    moved = subprocess.run(rsync, capture_output=True, text=True, check=False)
    assert moved.returncode != 0
    assert "erification failed" in moved.stderr
    assert attempts(sshd) == []


def test_the_mismatch_names_what_answered(sshd: Sshd) -> None:
    pin(sshd, "wrong")
    with pytest.raises(HostKeyMismatch) as caught:
        connect(sshd.target)
    assert keys.fingerprint(sshd.host_key.public) in caught.value.message


@pytest.mark.parametrize("place", [0, 1, 2])
def test_any_of_several_pinned_keys_will_do(sshd: Sshd, place: int) -> None:
    lines = [keys.generate("other").public, ECDSA]
    lines.insert(place, sshd.host_key.public)
    keys.pin(sshd.target.known_hosts, sshd.target.alias, tuple(lines))
    with connect(sshd.target) as remote:
        assert remote.run("echo in").stdout == "in\n"
    said = subprocess.run(openssh.ssh(sshd.target, "echo in"), capture_output=True, text=True, check=True)
    assert said.stdout == "in\n"


def test_the_users_files_cannot_weaken_it(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "user"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text("Host *\n  StrictHostKeyChecking no\n  ProxyCommand false\n")
    public = " ".join(sshd.host_key.public.split()[:2])
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {public}\nmachine {public}\n")
    (home / ".fabric.yml").write_text("load_ssh_configs: true\nuser: nobody\n")
    monkeypatch.setenv("HOME", str(home))
    with connect(sshd.target) as remote:  # not through `ProxyCommand false`
        assert remote.run("true").ok
    before = attempts(sshd)
    assert before
    pin(sshd, "wrong")
    with pytest.raises(HostKeyMismatch):
        connect(sshd.target)
    assert attempts(sshd) == before


def test_openssh_takes_no_setting_but_ours(sshd: Sshd) -> None:
    told = subprocess.run(
        [*openssh.ssh(sshd.target), "-G"], capture_output=True, text=True, check=True
    ).stdout
    settings = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
    assert settings["stricthostkeychecking"] == "true"
    assert settings["userknownhostsfile"] == str(sshd.target.known_hosts)
    assert settings["globalknownhostsfile"] == "/dev/null"
    assert settings["updatehostkeys"] == "false"
    assert settings["hostkeyalias"] == "machine"
    assert settings["batchmode"] == "yes"
    assert settings["identitiesonly"] == "yes"
    assert settings["forwardagent"] == "no"
    assert settings.get("verifyhostkeydns", "false") == "false"
    assert settings.get("knownhostscommand", "none") == "none"


@pytest.mark.parametrize("name", ["a b", "50%h", "it's", 'say "x"', "back\\slash"])
def test_odd_folders(sshd: Sshd, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    target = replace(sshd.target, key=folder / "key", known_hosts=folder / "known_hosts")
    keys.write_private(folder / "key", sshd.user_key.private)
    keys.pin(folder / "known_hosts", target.alias, (sshd.host_key.public,))
    with connect(target) as remote:
        remote.put(b"there", f"{sshd.home}/x")
    subprocess.run(openssh.ssh(target, "true"), check=True)
    rsync = ["rsync", "-e", openssh.rsync_shell(target), "--", f"127.0.0.1:{sshd.home}/x", str(tmp_path)]
    subprocess.run(rsync, check=True)
    assert (tmp_path / "x").read_bytes() == b"there"


def test_a_hop_cannot_prompt_nor_trust_anybody() -> None:
    target = SshTarget("2001:db8::1", 22, "me", None, Path("/k"), "machine", proxy_jump="me@gate")
    command = openssh.hop(target)
    assert command is not None
    assert command[:3] == ["ssh", "-W", "[2001:db8::1]:22"]
    assert {"StrictHostKeyChecking=yes", "BatchMode=yes"} <= set(command)
    assert command[-2:] == ["--", "me@gate"]
    assert f"ProxyCommand={shlex.join(command)}" in openssh.options(target)
    hostile = openssh.hop(replace(target, proxy_jump="-oProxyCommand=touch x"))
    assert hostile is not None
    assert hostile[-2:] == ["--", "-oProxyCommand=touch x"]
