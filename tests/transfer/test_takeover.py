"""Pushes whose line stood still: what of them comes to light after a later push must not count."""

from __future__ import annotations

import gzip
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloudtrain.errors import TransferError
from cloudtrain.transfer.lane import Lane
from cloudtrain.transfer.pack import Batch, Squeeze, tar
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.tree import Entry, tree_of


class Process:
    """A `Command` on this machine: its input stays open as long as a dead line's does."""

    def __init__(self, *args: str) -> None:
        words = ["bash", "-c", script("push-lib", "push-lane"), "cloudtrain", *args]
        self._running = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    def write(self, data: bytes | memoryview) -> None:
        assert self._running.stdin is not None
        self._running.stdin.write(data)

    def read(self, size: int = 1 << 16) -> bytes:
        assert self._running.stdout is not None
        return self._running.stdout.read(size)

    def read_error(self, size: int = 1 << 16) -> bytes:
        assert self._running.stderr is not None
        chunk = self._running.stderr.read(size)
        if not chunk:
            self._running.stderr.close()
        return chunk

    def close_input(self) -> None:
        assert self._running.stdin is not None
        self._running.stdin.close()

    def exit_code(self) -> int:
        return self._running.wait(30)

    def end(self) -> None:
        """Wait, and give everything back."""
        self.close_input()
        self.exit_code()
        assert self._running.stdout is not None
        self._running.stdout.close()


class Machine:
    """Lanes of several pushes into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder / "project", folder / "manifests" / "project"
        self._stack = ExitStack()

    def lane(self, push: str) -> tuple[Lane, Process]:
        command = Process(str(self.folder), str(self.manifest), push)
        lane = Lane(command)
        self._stack.callback(command.end)
        return lane, command

    def begin(self, push: str, *entries: Entry) -> tuple[Lane, Process]:
        lane, command = self.lane(push)
        self.look(lane)
        lane.say("begin", tree_of(list(entries), []).names)
        assert lane.answer() == "ok"
        return lane, command

    @staticmethod
    def look(lane: Lane) -> None:
        lane.say("look", b"", "-", "-")
        assert [lane.answer() for _ in range(6)][::5] == ["differs", "ok"]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def text(content: bytes) -> Entry:
    return Entry("a.txt", "file", len(content), 10**18, content=content)


OLD, NEW = text(b"old" * 100_000), text(b"new" * 100_000)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_half_a_lot_is_not_unpacked(there: Machine, share: float) -> None:
    """Its line ends after a later push has put everything there."""
    _, dead = there.begin("one", OLD)
    lot = tar([OLD])
    dead.write(b"tar %d\n" % len(lot) + lot[: int(share * len(lot))])
    new, _ = there.begin("two", NEW)
    new.send(Batch((NEW,)), Squeeze())
    assert new.answer() == "ok"
    dead.close_input()
    assert dead.exit_code() != 0
    assert (there.folder / "a.txt").read_bytes() == NEW.content


def test_half_a_lot_of_the_only_push_is_not_unpacked(there: Machine) -> None:
    """What lies there stays until something whole replaces it."""
    lane, command = there.begin("one", NEW)
    lane.send(Batch((NEW,)), Squeeze())
    assert lane.answer() == "ok"
    lot = tar([OLD])
    command.write(b"tar %d\n" % len(lot) + lot[: len(lot) // 2])
    command.close_input()
    assert command.exit_code() != 0
    assert (there.folder / "a.txt").read_bytes() == NEW.content
    assert [path.name for path in there.manifest.parent.glob("*.lane.*")] == []


def test_an_older_push_does_nothing_more(there: Machine) -> None:
    """Whatever it says: whole lots, deletions, parts, places, its record."""
    said = (
        ("tar", bytes(tar([OLD]))),
        ("drop", b"a.txt\0"),
        ("begin", gzip.compress(b"fb.txt\0")),
        ("part", b"x" * 10, "0", "10", "aaaa", "10"),
        ("place", b"aaaa\x001\x00644\0a.txt\0"),
        ("commit", b"", "digest", "stat"),
    )
    lanes = [there.begin("one", OLD)[0], *(there.lane("one")[0] for _ in said[1:])]
    new, _ = there.begin("two", NEW)
    new.send(Batch((NEW,)), Squeeze())
    assert new.answer() == "ok"
    names = there.manifest.with_name("project.names").read_bytes()
    for lane, (word, data, *words) in zip(lanes, said, strict=True):
        lane.say(word, data, *words)
        with pytest.raises(TransferError, match="later push") as caught:
            lane.answer()
        assert "run the same command again" in caught.value.hint
    assert (there.folder / "a.txt").read_bytes() == NEW.content
    assert there.manifest.with_name("project.names").read_bytes() == names
    assert not there.manifest.with_name("project.parts").exists()


def test_an_older_push_knows_nothing_of_a_fetched_dataset(there: Machine) -> None:
    lane, _ = there.begin("one", OLD)
    there.manifest.with_name("project.unpacked").write_text("digest\n")
    lane.send(Batch((OLD,)), Squeeze())
    with pytest.raises(TransferError, match="later push"):
        lane.answer()
    assert not (there.folder / "a.txt").exists()


def test_two_that_begin_at_once(there: Machine) -> None:
    """One of them goes on, the other hears why it does not."""
    lanes = [there.lane(str(number))[0] for number in range(4)]
    names = gzip.compress(b"".join(b"f%d\0" % number for number in range(20_000)))
    said: list[str] = []

    def begin(lane: Lane) -> None:
        there.look(lane)
        lane.say("begin", names)
        try:
            said.append(lane.answer())
        except TransferError as error:
            said.append("later" if "later push" in str(error) else str(error))

    threads = [threading.Thread(target=begin, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(said) <= {"ok", "later"}
    assert "ok" in said


def test_what_killed_lanes_left_goes(there: Machine) -> None:
    left = there.manifest.with_name("project.lane.123")
    left.mkdir(parents=True)
    (left / "lot").write_bytes(b"x")
    there.begin("one", OLD)
    assert not left.exists()
