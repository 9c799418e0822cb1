"""One connection, many channels: what is said, what is lost, and that nothing hangs."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.errors import AuthenticationFailed, ConnectError, HostKeyMismatch
from cloudtrain.ssh import keys
from cloudtrain.ssh.remote import CHANNELS, KILLED, CommandFailed, Remote, connect, connect_when_ready
from tests.support.sshd import Sshd

SOON = 10.0
"""Seconds that tell an error from a hang, on a busy machine."""


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread


def test_exit_codes(remote: Remote) -> None:
    result = remote.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.code, result.stdout, result.stderr, result.ok) == (3, "out\n", "err\n", False)
    with pytest.raises(CommandFailed, match="exited with 3") as caught:
        remote.run("echo why >&2; exit 3")
    assert caught.value.result.tail == "why"


def test_a_killed_command_is_no_lost_line(remote: Remote) -> None:
    assert remote.run("kill -KILL $$", check=False).code == KILLED
    assert remote.run("true").ok


def test_silence_is_an_error(remote: Remote) -> None:
    start = time.monotonic()
    with pytest.raises(ConnectError, match="stopped answering"):
        remote.run("echo begun; exec sleep 100", timeout=0.3)
    assert time.monotonic() - start < SOON
    assert remote.run("true").ok


def test_silence_after_the_outputs_closed_is_an_error(remote: Remote) -> None:
    with pytest.raises(ConnectError, match="stopped answering"):
        remote.run("exec sleep 100 >&- 2>&-", timeout=0.3)


@pytest.mark.parametrize("stream", [1, 2])
def test_one_talking_stream_is_not_silence(remote: Remote, stream: int) -> None:
    command = f"for i in 1 2 3 4 5 6; do echo $i >&{stream}; sleep 0.3; done; seq 300000 >&2; echo end"
    result = remote.run(command, timeout=1.2)
    assert result.stdout.endswith("end\n")
    assert result.stderr.endswith("300000\n")


def test_taken_input_is_not_silence(remote: Remote) -> None:
    data = bytes(1 << 20) * 8
    take = "for i in 1 2 3 4 5 6 7 8; do head -c 1048576 | wc -c > /dev/null; sleep 0.3; done; wc -c"
    assert remote.run(take, stdin=data, timeout=1.5).ok


def test_five_megabytes_on_both_streams(remote: Remote) -> None:
    result = remote.run("head -c 5000000 /dev/zero | tr '\\0' e >&2 & head -c 5000000 /dev/zero; wait")
    assert len(result.stdout) == len(result.stderr) == 5_000_000


def test_binary_input(remote: Remote) -> None:
    data = bytes(range(256)) * 20_000
    assert remote.run("sha256sum", stdin=data).stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_input_nobody_reads(remote: Remote) -> None:
    assert remote.run("exit 0", stdin=bytes(8_000_000)).ok


def test_lines_as_they_come(remote: Remote) -> None:
    lines: list[str] = []
    remote.run("printf 'one\\r\\ntwo\\n\\nh\\303'; sleep 0.1; printf '\\251 end'", on_line=lines.append)
    assert lines == ["one", "two", "", "hé end"]


def test_an_error_in_on_line_passes(remote: Remote) -> None:
    def refuse(line: str) -> None:
        raise KeyError(line)

    with pytest.raises(KeyError):
        remote.run("echo x; sleep 0.1; yes", on_line=refuse)
    assert remote.run("true").ok


def test_scripts(remote: Remote) -> None:
    text = '#!/bin/bash\nset -e\ncat\nprintf "%s|" "$@"\n# the end'
    assert remote.script(text, "a b", "it's", "", "-x", "$HOME").stdout == "a b|it's||-x|$HOME|"
    assert remote.script("").ok
    assert remote.script("set -e\nfalse\necho no", check=False).code == 1
    assert remote.script("exit 4", check=False).code == 4
    assert "line 2:" in remote.script("\nnot-a-command", check=False).stderr


def test_half_a_script_does_nothing(sshd: Sshd, remote: Remote) -> None:
    whole = b"{ :; touch begun\n rm -rf $HOME/some\n}\n"
    assert remote.run("bash -s", stdin=whole[:-4], check=False).code == 2
    assert not (sshd.home / "begun").exists()


def test_one_handshake_and_at_most_eight_channels(sshd: Sshd, remote: Remote) -> None:
    count = "mkdir -p at; touch at/%d; ls at | wc -l; sleep 0.1; rm at/%d"
    with ThreadPoolExecutor(16) as pool:
        at_once = [int(said.stdout) for said in pool.map(remote.run, [count % (n, n) for n in range(32)])]
    assert 1 < max(at_once) <= CHANNELS
    assert sshd.handshakes() == 1


def test_a_server_that_allows_fewer_channels(tmp_path: Path) -> None:
    server = Sshd(tmp_path / "narrow", options="MaxSessions 4\n").start()
    try:
        with connect(server.target) as remote, ThreadPoolExecutor(16) as pool:
            answers = [said.stdout for said in pool.map(remote.run, [f"echo {n}" for n in range(32)])]
        assert answers == [f"{n}\n" for n in range(32)]
    finally:
        server.stop()


def test_a_line_cut_in_the_middle(sshd: Sshd, remote: Remote) -> None:
    def cut(_: str) -> None:
        sshd.drop_connections()

    start = time.monotonic()
    with pytest.raises(ConnectError, match="closed before"):
        remote.run("echo begun; exec sleep 100", on_line=cut)
    with pytest.raises(ConnectError, match="is gone"):
        remote.run("true")
    assert time.monotonic() - start < SOON


def test_a_line_cut_while_sending(sshd: Sshd, remote: Remote) -> None:
    with remote.open("echo begun; exec sleep 100") as channel:
        assert channel.read() == b"begun\n"
        sshd.drop_connections()
        with pytest.raises(ConnectError, match="closed while sending"):
            channel.write(bytes(1 << 24))
        assert channel.read() == b""


def test_a_cut_line_wakes_every_thread(sshd: Sshd, remote: Remote) -> None:
    running = threading.Barrier(CHANNELS + 1)

    def begun(_: str) -> None:
        running.wait(SOON)

    def wait(_: int) -> str:
        try:
            remote.run("echo x; exec sleep 100", timeout=None, on_line=begun)
        except ConnectError:
            return "lost"
        return "ended"

    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(wait, n) for n in range(12)]
        running.wait(SOON)
        sshd.drop_connections()
        assert {answer.result(SOON) for answer in answers} == {"lost"}


def test_closing_twice(sshd: Sshd) -> None:
    remote = connect(sshd.target)
    remote.close()
    remote.close()
    with pytest.raises(ConnectError):
        remote.run("true")


NAMES = [
    "a b",
    "-rf",
    "it's",
    "$(touch x)",
    "line\nbreak",
    'quo"te',
    "é",
    "back\\slash",
    "*",
    "x/y/z",
    "b\udcffd",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(sshd: Sshd, remote: Remote, name: str) -> None:
    data = bytes(range(256))
    for path in (name, f"{sshd.home}/deep/{name}"):
        assert remote.read(path) is None
        remote.put(data, path)
        remote.put(data + b"2", path, mode=0o640)
        assert remote.read(path) == data + b"2"
    here = sshd.home / name
    assert here.stat().st_mode & 0o777 == 0o640
    left = [item for item in sshd.home.rglob("*") if item.is_file()]
    assert len(left) == 2


def test_a_folder_is_neither_read_nor_replaced(sshd: Sshd, remote: Remote) -> None:
    (sshd.home / "folder").mkdir()
    with pytest.raises(ConnectError, match="cannot read"):
        remote.read("folder")
    with pytest.raises(CommandFailed):
        remote.put(b"x", "folder")
    assert not list((sshd.home / "folder").iterdir())


def test_a_put_that_is_cut_leaves_the_old_file(sshd: Sshd, remote: Remote) -> None:
    remote.put(b"old", "file")

    class Cut(bytes):
        """More is announced than comes, as when the line is cut."""

        def __len__(self) -> int:
            return 10

    with pytest.raises(CommandFailed):
        remote.put(Cut(b"new"), "file")
    assert remote.read("file") == b"old"


class Clock:
    """Time that passes only by sleeping, and lets something happen meanwhile."""

    def __init__(self, *events: tuple[int, object]) -> None:
        self.now = 0.0
        self.sleeps = 0
        self.events = dict(events)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        event = self.events.get(self.sleeps)
        if callable(event):
            event()


def test_a_server_that_comes_later(tmp_path: Path) -> None:
    server = Sshd(tmp_path / "late")
    clock = Clock((3, server.start))
    try:
        with connect_when_ready(server.target, clock=clock, sleep=clock.sleep) as remote:
            assert remote.run("true").ok
        assert clock.sleeps == 3
    finally:
        server.stop()


def test_a_server_that_never_comes(tmp_path: Path) -> None:
    server = Sshd(tmp_path / "never")
    clock = Clock()
    with pytest.raises(ConnectError, match="within 60 s") as caught:
        connect_when_ready(server.target, deadline_s=60, clock=clock, sleep=clock.sleep)
    assert clock.now <= 60
    assert caught.value.hint


def test_what_will_not_change_fails_at_once(sshd: Sshd, tmp_path: Path) -> None:
    clock = Clock()
    keys.write_private(tmp_path / "key", keys.generate("stranger").private)
    with pytest.raises(AuthenticationFailed):
        connect_when_ready(replace(sshd.target, key=tmp_path / "key"), clock=clock, sleep=clock.sleep)
    keys.pin(sshd.target.known_hosts, sshd.target.alias, (keys.generate("other").public,))
    with pytest.raises(HostKeyMismatch):
        connect_when_ready(sshd.target, clock=clock, sleep=clock.sleep)
    assert clock.sleeps == 0


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_commands_that_end_while_they_are_told_something_leave_the_connection(sshd: Sshd) -> None:
    def tell(_: int) -> None:
        with line.open("head -c 100000 >/dev/null") as channel, suppress(ConnectError):
            for _ in range(400):
                channel.write(bytes(3000))

    with connect(sshd.target) as line:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(tell, range(60)))
        assert line.run("echo here").stdout == "here\n"


def test_nobody_waits_for_a_machine_that_nobody_wants_any_more(remote: Remote, sshd: Sshd) -> None:
    """An interrupt during its reboot."""
    sshd.stop()
    remote.close()
    with pytest.raises(ConnectError, match="was closed"):
        remote.reopen(deadline_s=60)
