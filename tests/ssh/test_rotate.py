"""Two phases, killed at every edge on either side: the machine can always be reached."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from cloudtrain.errors import ConnectError, HostKeyMismatch
from cloudtrain.ssh import keys, openssh
from cloudtrain.ssh.remote import Remote, connect, connect_when_ready
from cloudtrain.ssh.rotate import Edge, Rotation, Server, rotate
from tests.support.sshd import Sshd, stopped

EDGES: tuple[Edge, ...] = get_args(Edge)
READS_KEYS_ONCE = ("-r",)
"""OpenSSH until 9.7 starts itself anew for a connection, and reads its keys again; others do not."""


def server(sshd: Sshd) -> Server:
    assert sshd.process is not None
    return Server(
        key_file=str(sshd.folder / "host_key"), works="true", reload=f"kill -HUP {sshd.process.pid}"
    )


def turn(sshd: Sshd, *, edge: Callable[[Edge], None] = lambda _: None) -> Rotation:
    again = partial(connect, sshd.target)
    with connect_when_ready(sshd.target) as remote:  # sshd may be reading its key anew
        return rotate(remote, sshd.host_key.public, connect=again, server=server(sshd), edge=edge)


def pins(sshd: Sshd) -> tuple[str, ...]:
    return keys.pinned(sshd.target.known_hosts, sshd.target.alias)


def first(sshd: Sshd) -> str:
    return " ".join(sshd.host_key.public.split()[:2])


def check_rotated(sshd: Sshd) -> None:
    """The machine answers with another key, only that is pinned, nothing lies about."""
    with connect(sshd.target) as remote:
        assert pins(sshd) == (remote.host_key,)
        assert remote.host_key != first(sshd)
        assert (sshd.folder / "host_key.pub").read_text().strip() == remote.host_key
    subprocess.run(openssh.ssh(sshd.target, "true"), check=True)
    assert (sshd.folder / "host_key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in sshd.folder.glob("host_key*")) == ["host_key", "host_key.pub"]
    sshd.pin()
    with pytest.raises(HostKeyMismatch):
        connect(sshd.target)


def test_the_first_key_ends(sshd: Sshd) -> None:
    edges: list[Edge] = []
    with connect(sshd.target) as open_before:
        done = turn(sshd, edge=edges.append)
        assert open_before.run("echo still here").ok
    assert done.outcome == "rotated"
    assert pins(sshd) == (done.public,)
    assert edges == list(EDGES)
    assert sshd.handshakes() == 3  # before, during, and the proof
    check_rotated(sshd)


def test_twice_is_once(sshd: Sshd) -> None:
    new = turn(sshd).public
    assert turn(sshd) == Rotation("already", new)
    check_rotated(sshd)


def test_the_private_half_stays_on_the_machine(sshd: Sshd, remote: Remote) -> None:
    turn(sshd)
    secret = (sshd.folder / "host_key").read_text().splitlines()[3]
    for path in (sshd.target.known_hosts, sshd.log):
        assert secret not in path.read_text()


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.remote import connect
from cloudtrain.ssh.rotate import Server, rotate

port, user, key, known_hosts, alias, first, file, reload, fatal = sys.argv[1:]
target = SshTarget("127.0.0.1", int(port), user, Path(key), Path(known_hosts), alias)

def edge(name):
    if name == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

with connect(target) as remote:
    rotate(remote, first, connect=lambda: connect(target), server=Server(file, "true", reload), edge=edge)
"""


@pytest.mark.parametrize("fatal", EDGES)
def test_we_are_killed(sshd: Sshd, fatal: Edge) -> None:
    target, told = sshd.target, server(sshd)
    words = [str(target.port), target.user, str(target.key), str(target.known_hosts), target.alias]
    words += [sshd.host_key.public, told.key_file, told.reload, fatal]
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, *words], check=False)
    assert killed.returncode == -signal.SIGKILL
    with connect_when_ready(target) as remote:  # sshd may be reading its key anew
        assert remote.host_key in pins(sshd)
    subprocess.run(openssh.ssh(target, "true"), check=True)
    assert turn(sshd).outcome == ("already" if fatal == "dropped" else "rotated")
    check_rotated(sshd)


FATAL = """#!/bin/bash
# Counts the programs that a script calls, and kills the script before one of them.
count=$(($(cat "{folder}/count") + 1))
echo $count >"{folder}/count.$$" && /usr/bin/mv -f "{folder}/count.$$" "{folder}/count" # they run in pairs
[[ $count != "$(cat "{folder}/fatal")" ]] || kill -KILL $PPID
exec {real} "$@"
"""
PROGRAMS = ("ssh-keygen", "rm", "mv", "sync", "tee", "chmod", "bash")


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Sshd]:
    """A machine whose scripts can be killed before any program they call."""
    folder = tmp_path / "fatal"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text(FATAL.format(folder=folder, real=f"/usr/bin/{name}"))
        (folder / name).chmod(0o755)
    (folder / "fatal").write_text("0")
    (folder / "count").write_text("0")
    fragile = Sshd(tmp_path / "machine", path=f"{folder}:/usr/bin:/bin", arguments=READS_KEYS_ONCE)
    with stopped(fragile) as started:
        yield started


def restore(sshd: Sshd) -> None:
    """Give the machine its first key again, as at its first boot."""
    for path in sshd.folder.glob("host_key*"):
        path.unlink()
    sshd.stop()
    sshd.pin()
    sshd.start()


def test_the_machine_is_killed_anywhere(fragile: Sshd, tmp_path: Path) -> None:
    folder, died = tmp_path / "fatal", 0
    for fatal in range(1, 100):
        (folder / "count").write_text("0")
        (folder / "fatal").write_text(str(fatal))
        try:
            ended = turn(fragile).outcome
        except ConnectError:
            ended = "died"
        if int((folder / "count").read_text()) < fatal:
            assert ended == "rotated"
            break
        died += ended == "died"
        (folder / "fatal").write_text("0")
        assert turn(fragile).outcome in ("rotated", "already")
        check_rotated(fragile)
        restore(fragile)
    assert died > 8


def test_a_machine_that_restarts_after_it_died(fragile: Sshd, tmp_path: Path) -> None:
    """sshd was never told, and reads the new key when it is started again."""
    deaf = replace(server(fragile), reload="kill -KILL $PPID")
    again = partial(connect, fragile.target)
    with again() as remote, pytest.raises(ConnectError):
        rotate(remote, fragile.host_key.public, connect=again, server=deaf)
    assert len(pins(fragile)) == 2
    with again() as remote:
        assert remote.host_key == first(fragile)
    assert fragile.process is not None
    os.kill(fragile.process.pid, signal.SIGHUP)
    assert turn(fragile).outcome == "rotated"
    check_rotated(fragile)


@pytest.fixture
def steady(tmp_path: Path) -> Iterator[Sshd]:
    """A machine whose sshd reads its key when it is told, and not before."""
    with stopped(Sshd(tmp_path / "machine", arguments=READS_KEYS_ONCE)) as started:
        yield started


def test_an_sshd_that_does_not_listen_keeps_both_keys(steady: Sshd) -> None:
    sshd = steady
    deaf = replace(server(sshd), reload="true")
    again = partial(connect, sshd.target)
    with again() as remote, pytest.raises(ConnectError, match="did not take") as caught:
        rotate(remote, sshd.host_key.public, connect=again, server=deaf, deadline_s=0.2)
    assert caught.value.hint
    assert len(pins(sshd)) == 2
    assert turn(sshd).outcome == "rotated"
    check_rotated(sshd)


def test_who_answers_with_a_third_key_is_refused_at_once(sshd: Sshd) -> None:
    again = partial(connect, sshd.target)
    other = sshd.folder / "other"
    keys.write_private(other, keys.generate("other").private)
    swap = f"cp {other} {sshd.folder}/host_key; rm {sshd.folder}/host_key.pub; {server(sshd).reload}"
    with again() as remote, pytest.raises(HostKeyMismatch):
        rotate(
            remote, sshd.host_key.public, connect=_slowly(again), server=replace(server(sshd), reload=swap)
        )
    assert len(pins(sshd)) == 2


def _slowly(again: Callable[[], Remote]) -> Callable[[], Remote]:
    """Wait for the restart of sshd: before it, the first key answers, which is fine."""

    def wait() -> Remote:
        while (remote := again()).run("true").ok:
            remote.close()
        return remote

    return wait


@pytest.mark.parametrize("change", ["no systemd", "no file", "another key", "no root"])
def test_where_it_cannot_be_had_nothing_changes(sshd: Sshd, change: str) -> None:
    told = server(sshd)
    other = sshd.folder / "other"
    keys.write_private(other, keys.generate("other").private)
    told = {
        "no systemd": replace(told, works="false"),
        "no file": replace(told, key_file=str(sshd.folder / "none")),
        "another key": replace(told, key_file=str(other)),
        "no root": replace(told, key_file="/nowhere/key"),
    }[change]
    before = {path: path.read_bytes() for path in sshd.folder.glob("*host*")}
    with connect(sshd.target) as remote:
        done = rotate(remote, sshd.host_key.public, connect=_never, server=told)
    assert done == Rotation("unavailable", first(sshd))
    assert {path: path.read_bytes() for path in sshd.folder.glob("*host*")} == before
    assert pins(sshd) == (first(sshd),)


def _never() -> Remote:
    raise AssertionError("nothing may be connected")
