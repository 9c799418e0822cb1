"""Lines that break, disks that are full, ends without rsync: everything continues, bit for bit."""

from __future__ import annotations

import filecmp
import os
import random
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.link import Link
from cloudtrain.errors import ConnectError, TornCheckpoint, TransferError
from cloudtrain.events import Event, Progress, Silent
from cloudtrain.models.config import Config
from cloudtrain.models.machine import SshTarget
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.transfer import bulk
from cloudtrain.transfer.manifest import There
from cloudtrain.transfer.push import differs, push_project
from cloudtrain.transfer.tree import Entry
from tests.support.sshd import Sshd
from tests.support.thorough import THOROUGH, also
from tests.transfer.conftest import Seen
from tests.transfer.test_containers import make_pt
from tests.transfer.test_pull import Trainer, fetch
from tests.transfer.test_push import contents, fill

_CHANCE = random.Random(20)
POINTS = [round(_CHANCE.random(), 3) for _ in range(10)]
"""Shares of the bytes after which the line is cut."""


class Counting:
    """A reporter that remembers how much a meter was given at its first word."""

    def __init__(self) -> None:
        self.first: Progress | None = None

    def emit(self, event: Event) -> None:
        if isinstance(event, Progress) and self.first is None:
            self.first = event


@contextmanager
def cut_after(machine: Sshd, size: int) -> Generator[SshTarget]:
    """Yield a way to the machine that breaks for good when so many bytes have passed."""
    line = Link(("127.0.0.1", machine.port), 0.002, 100e6, cut_after=size)
    thread = threading.Thread(target=line.serve, daemon=True)
    thread.start()
    try:
        yield replace(machine.target, port=line.port)
    finally:
        line.stop.set()
        thread.join()


@pytest.mark.parametrize("share", POINTS)
def test_push_goes_on_wherever_it_was_cut(machine: Sshd, layout: Layout, base: Path, share: float) -> None:
    """Small files, and a big one of which the pieces that arrived are not sent again."""
    fill(base, 60, 40_000)
    (base / "big.bin").write_bytes(os.urandom(40 << 20))
    with (
        cut_after(machine, int(share * 42_000_000) + 20_000) as target,
        connect(target) as first,
        pytest.raises(ConnectError),
    ):
        push_project(first, Config(), base, layout, Silent())
    assert not (Path(layout.root) / "manifests" / "project.digest").exists()
    assert not (Path(layout.project) / "big.bin").exists(), "a part is never taken for the whole"
    listed = Path(layout.root) / "manifests" / "project.parts"
    kept = sum(
        int(line.split()[1]) for file in listed.glob("*.done") for line in file.read_text().splitlines()
    )
    with connect(machine.target) as second:
        assert differs(second, Config(), base, layout) == ("project",)
        counted = Counting()
        push_project(second, Config(), base, layout, counted)
        assert differs(second, Config(), base, layout) == ()
    if kept:
        assert counted.first is not None
        assert counted.first.done >= kept, "what had arrived counts as done from the start"
    assert contents(Path(layout.project)) == contents(base)
    assert not listed.exists()


@pytest.mark.parametrize("share", POINTS)
def test_fetch_goes_on_wherever_it_was_cut(machine: Sshd, tmp_path: Path, share: float) -> None:
    trainer, home = Trainer(machine.home / "the run").begin(), tmp_path / "home"
    trainer.epoch(1, 0.2, size=16_000_000)
    with (
        cut_after(machine, int(share * 32_000_000) + 20_000) as target,
        connect(target) as first,
        pytest.raises(ConnectError),
    ):
        fetch(first, trainer, home)
    for path in home.rglob("*.pt"):
        assert path.read_bytes() == (trainer.run / "weights" / path.name).read_bytes()
    kept = sum(
        int(line.split()[1])
        for file in (home / ".parts").glob("*.done")
        for line in file.read_text().splitlines()
    )
    counted = Counting()
    with connect(machine.target) as second:
        fetch(second, trainer, home, counted)
    for name in ("best.pt", "last.pt"):
        assert (home / "weights" / name).read_bytes() == (trainer.run / "weights" / name).read_bytes()
    if kept and counted.first is not None:
        assert counted.first.done >= kept
    assert not (home / ".parts").exists()


@contextmanager
def small_disk(folder: Path, size: str) -> Generator[Path]:
    """Mount a file system of its own, where that is allowed."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=False)
    if done.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_disk_full_on_the_machine(line: Remote, machine: Sshd, base: Path) -> None:
    """The clear word comes, what was there stays, and with room the same command goes on."""
    with small_disk(machine.home / "small", "90m") as disk:
        layout = Layout(str(disk / "run"))
        fill(base, 30, 20_000)
        push_project(line, Config(), base, layout, Silent())
        (disk / "ballast").write_bytes(bytes(15_000_000))
        (base / "new.bin").write_bytes(os.urandom(6_000_000))
        eater = Eater(disk)
        with pytest.raises(TransferError, match=r"full|are free"):
            push_project(line, Config(), base, layout, eater)
        assert (Path(layout.project) / "part 0" / "f0.bin").read_bytes() == (
            base / "part 0" / "f0.bin"
        ).read_bytes()
        for name in ("ballast", "eaten"):
            (disk / name).unlink(missing_ok=True)
        push_project(line, Config(), base, layout, Silent())
        assert contents(Path(layout.project)) == contents(base)


class Eater:
    """Takes all room of a disk; `push` looked before, and believed there was some."""

    def __init__(self, disk: Path) -> None:
        try:
            with (disk / "eaten").open("wb") as file:
                while file.write(bytes(1 << 20)):
                    pass
        except OSError:
            pass

    def emit(self, event: Event) -> None:
        """Hear nothing."""


def test_disk_full_in_the_middle(line: Remote, machine: Sshd, base: Path) -> None:
    """Room that vanishes while files arrive."""
    with small_disk(machine.home / "small", "90m") as disk:
        layout = Layout(str(disk / "run"))
        (base / "a.bin").write_bytes(os.urandom(10_000_000))

        class Late:
            def emit(self, event: Event) -> None:
                if not (disk / "eaten").exists():
                    Eater(disk)

        fill(base, 200, 30_000)
        with pytest.raises(TransferError, match="disk is full") as caught:
            push_project(line, Config(), base, layout, Late())
        assert "volume_gb" in caught.value.hint
        (disk / "eaten").unlink()
        push_project(line, Config(), base, layout, Silent())
        assert contents(Path(layout.project)) == contents(base)


def test_disk_full_at_home(line: Remote, machine: Sshd, tmp_path: Path) -> None:
    trainer = Trainer(machine.home / "the run").begin()
    with small_disk(tmp_path / "home", "4m") as home:
        trainer.epoch(1, 0.2, size=900_000)
        fetch(line, trainer, home)
        good = (home / "weights" / "last.pt").read_bytes()
        trainer.epoch(2, 0.3, size=9_000_000)
        with pytest.raises(TransferError, match="No space left"):
            fetch(line, trainer, home)
        assert (home / "weights" / "last.pt").read_bytes() == good
        subprocess.run(["mount", "-o", "remount,size=60m", str(home)], check=True)
        assert fetch(line, trainer, home)["weights/last.pt"].epoch == 2


@pytest.mark.parametrize("machine", ["rsync", also("tar")], indirect=True)
def test_torn_at_a_hundred_places(line: Remote, machine: Sshd, tmp_path: Path) -> None:
    """Cut anywhere, or with a bit turned in its directory: never accepted, and the good one stays."""
    trainer, home = Trainer(machine.home / "the run").begin(), tmp_path / "home"
    trainer.epoch(1, 0.2, size=20_000)
    fetch(line, trainer, home)
    best, last = trainer.run / "weights" / "best.pt", trainer.run / "weights" / "last.pt"
    good = (home / "weights" / "last.pt").read_bytes()
    whole = make_pt(tmp_path / "new.pt", 20_000, seed=2).read_bytes()
    chance = random.Random(3)
    best.unlink()
    (home / "weights" / "best.pt").unlink()
    directory = whole.rfind(b"PK\x05\x06") - 46
    for number in range(110):
        if number < 100:
            last.write_bytes(whole[: chance.randrange(len(whole))])
        else:
            spoilt = bytearray(whole)
            spoilt[directory + number - 100] ^= 0xFF
            last.write_bytes(spoilt)
        came = fetch(line, trainer, home, pause=lambda _: None)
        assert (home / "weights" / "last.pt").read_bytes() == good
        assert not came["weights/last.pt"].fetched
    last.write_bytes(whole)
    assert fetch(line, trainer, home)["weights/last.pt"].fetched


def test_torn_at_a_hundred_places_and_none_at_home(line: Remote, machine: Sshd, tmp_path: Path) -> None:
    trainer = Trainer(machine.home / "the run").begin()
    whole = make_pt(tmp_path / "new.pt", 20_000, seed=2).read_bytes()
    for number, share in enumerate(POINTS):
        (trainer.run / "weights" / "last.pt").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(TornCheckpoint):
            fetch(line, trainer, tmp_path / f"home {number}", pause=lambda _: None)


def test_no_rsync_here(
    machine: Sshd, line: Remote, layout: Layout, base: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A computer without rsync sends changed files whole."""
    monkeypatch.setenv("PATH", "/nowhere")
    bulk.rsync_here.cache_clear()
    try:
        fill(base, 20, 1_000_000)
        push_project(line, Config(), base, layout, seen)
        for path in base.rglob("*.bin"):
            path.write_bytes(os.urandom(1_000_001))
        assert push_project(line, Config(), base, layout, seen).sent_files == 20
        assert contents(Path(layout.project)) == contents(base)
    finally:
        bulk.rsync_here.cache_clear()


@pytest.mark.parametrize("size", [12, 2_000_000])
def test_a_change_within_the_second_of_the_last_one_is_sent(
    line: Remote, layout: Layout, base: Path, seen: Seen, size: int
) -> None:
    """Of the same size too: no `stat` in whole seconds tells it."""
    files = [base / f"{number}.npy" for number in range(3)]
    second = time.time_ns() // 10**9 * 10**9
    for number, path in enumerate(files):
        path.write_bytes(b"a" * size)
        os.utime(path, ns=(second, second + 100 * number))
    (base / ".cloudtrainignore").write_text("!*.npy\n")
    push_project(line, Config(), base, layout, seen)
    for path in files[:2]:
        path.write_bytes(b"b" * size)
        os.utime(path, ns=(second, second + 500_000_000))
    assert push_project(line, Config(), base, layout, seen).sent_files == 2
    assert contents(Path(layout.project)) == contents(base)
    assert push_project(line, Config(), base, layout, seen).sent_files == 0


def test_after_a_push_that_broke_the_times_of_both_count() -> None:
    """Nobody knows which of the two came to lie there."""
    entry = Entry("a.py", "file", 12, 5 * 10**9 + 200, source="/a.py")
    size = {entry.raw: (12, 5, 0o644)}
    assert not There(same=False, files=size).lacks(entry)
    assert not There(same=False, files=size, recent={entry.raw: {200}}).lacks(entry)
    assert There(same=False, files=size, recent={entry.raw: {100}}).lacks(entry)
    assert There(same=False, files=size, recent={entry.raw: {100, 200}}).lacks(entry)


def test_a_broken_push_of_a_change_in_the_same_second_goes_on(
    machine: Sshd, layout: Layout, base: Path
) -> None:
    second = time.time_ns() // 10**9 * 10**9
    path = base / "big.npy"
    (base / ".cloudtrainignore").write_text("!*.npy\n")
    for number, letter in enumerate((b"a", b"b")):
        path.write_bytes(letter * 4_000_000)
        os.utime(path, ns=(second, second + number))
        if letter == b"a":
            with connect(machine.target) as first:
                push_project(first, Config(), base, layout, Silent())
        else:
            with cut_after(machine, 20_000) as target, connect(target) as cut, pytest.raises(ConnectError):
                push_project(cut, Config(), base, layout, Silent())
    with connect(machine.target) as again:
        push_project(again, Config(), base, layout, Silent())
    assert contents(Path(layout.project)) == contents(base)


def test_changed_big_files(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """By rsync where both have it, whole where not: the same files either way."""
    fill(base, 12, 1_500_000)
    odd = [base / name for name in ("#1.bin", ";2.bin", "-s.bin", " .bin", "#a/b.bin", "new\nline.bin")]
    for path in odd:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(1_500_000))
    push_project(line, Config(), base, layout, seen)
    plain = [path for path in sorted(base.rglob("*.bin")) if path not in odd]
    for number, path in enumerate([*odd, *plain]):
        if number < 10:
            with path.open("r+b") as file:
                file.seek(700_000)
                file.write(b"changed" * number or b"x")
    report = push_project(line, Config(), base, layout, seen)
    assert report.sent_files == 10
    assert contents(Path(layout.project)) == contents(base)


def test_sparse_file(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """Holes do not travel, and are holes there."""
    with (base / "sparse.bin").open("wb") as file:
        file.write(b"begin")
        file.seek(200 << 20)
        file.write(b"middle")
        file.truncate(1 << 30)
    (base / ".cloudtrainignore").write_text("!*.bin\n")
    report = push_project(line, Config(), base, layout, seen)
    there = Path(layout.project) / "sparse.bin"
    assert report.seconds < 60
    assert there.stat().st_size == 1 << 30
    assert there.stat().st_blocks * 512 < 64 << 20
    with there.open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(200 << 20)
        assert file.read(6) == b"middle"


@pytest.mark.skipif(not THOROUGH, reason="make test-all: 10 GB of disk")
def test_more_than_four_gigabytes_there_and_back(
    line: Remote, machine: Sshd, layout: Layout, base: Path, seen: Seen
) -> None:
    """Sizes and offsets beyond 32 bits, pushed as a file of the project and fetched as a checkpoint."""
    block = os.urandom(1 << 20)
    with (base / "big.npy").open("wb") as file:
        for number in range(5 << 10):
            file.write(number.to_bytes(8, "little") + block[8:])
    (base / ".cloudtrainignore").write_text("!*.npy\n")
    push_project(line, Config(), base, layout, seen)
    there = Path(layout.project) / "big.npy"
    assert filecmp.cmp(base / "big.npy", there, shallow=False)
    (base / "big.npy").unlink()
    trainer, home = Trainer(machine.home / "the run").begin(), base / "home"
    there.rename(trainer.run / "events.out.tfevents.big")
    trainer.epoch(1, 0.2)
    assert fetch(line, trainer, home)["events.out.tfevents.big"].size == 5 << 30
    assert filecmp.cmp(
        home / "events.out.tfevents.big", trainer.run / "events.out.tfevents.big", shallow=False
    )


def test_verify_finds_what_size_and_time_hide(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    fill(base, 10, 5_000)
    push_project(line, Config(), base, layout, seen)
    victim = Path(layout.project) / "part 3" / "f3.bin"
    info = victim.stat()
    victim.write_bytes(bytes(info.st_size))
    os.utime(victim, ns=(info.st_mtime_ns, info.st_mtime_ns))
    assert push_project(line, Config(), base, layout, seen).sent_files == 0
    report = push_project(line, Config(), base, layout, seen, verify=True)
    assert report.verified
    assert report.sent_files == 1
    assert contents(Path(layout.project)) == contents(base)
