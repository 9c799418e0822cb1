"""One script, bytes both ways, over a real sshd."""

from __future__ import annotations

import threading

import pytest

from cloudtrain.errors import ConnectError, TransferError
from cloudtrain.events import Progress
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.wire import Meter, Sink, exchange
from tests.support.sshd import Sshd
from tests.transfer.conftest import Seen


def test_both_ways(remote: Remote) -> None:
    data = bytes(range(256)) * 20_000
    assert exchange(remote, "cat", feed=lambda sink: sink.write(data)) == data
    assert exchange(remote, 'printf %s "$1"', "a 'b' \n$c") == b"a 'b' \n$c"


def test_a_script_may_be_silent_while_it_is_fed(remote: Remote) -> None:
    def feed(sink: Sink) -> None:
        for _ in range(3):
            sink.write(b"12345")
            threading.Event().wait(0.3)

    assert exchange(remote, "wc -c", feed=feed, silence=0.2).strip() == b"15"


def test_a_script_that_thinks_for_ever(remote: Remote) -> None:
    with pytest.raises(ConnectError, match="stopped answering"):
        exchange(remote, "sleep 30", silence=0.3)


def test_a_script_may_say_what_to_do(remote: Remote) -> None:
    with pytest.raises(TransferError, match=r"no way$") as caught:
        exchange(remote, "echo 'hint: git has many' >&2; echo no way >&2; echo 'hint: go there' >&2; exit 3")
    assert caught.value.hint == "go there"
    with pytest.raises(TransferError, match=r"no way$") as caught:
        exchange(remote, "echo 'hint: git has many' >&2; echo no way >&2; exit 3")
    assert caught.value.hint == "run the same command again"


def test_failures_are_told(remote: Remote) -> None:
    with pytest.raises(TransferError, match="no way"):
        exchange(remote, "echo no way >&2; exit 3", feed=lambda sink: sink.write(bytes(9_000_000)))
    with pytest.raises(TransferError, match="disk is full"):
        exchange(remote, "cat > /dev/full", feed=lambda sink: sink.write(b"x"))
    short = "tar: f38.bin: Wrote only 1024 of 14640 bytes"  # all that tar may say of a full disk
    with pytest.raises(TransferError, match="disk is full"):
        exchange(remote, f"echo '{short}' >&2; exit 2", feed=lambda sink: sink.write(b"x"))


def test_cut(sshd: Sshd, remote: Remote) -> None:
    threading.Timer(0.3, sshd.drop_connections).start()
    with pytest.raises(ConnectError):
        exchange(remote, "sleep 30")


def test_meter_speaks_twice_a_second() -> None:
    seen, now = Seen(), [100.0]
    meter = Meter(seen, "push", 1000, clock=lambda: now[0])
    for _ in range(20):
        now[0] += 0.1
        meter.add(60)
    told = [event for event in seen.events if isinstance(event, Progress)]
    assert 3 <= len(told) <= 5
    assert told[1].eta_s is not None
    assert told[-1].done <= 1000
