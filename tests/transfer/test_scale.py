"""Many files: the memory of this process, round trips of a push, and what a few changes cost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.link import Link
from cloudtrain.events import Silent
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import connect
from cloudtrain.transfer import bulk
from cloudtrain.transfer.lines import CHANNEL, Ladder
from cloudtrain.transfer.pack import BATCH_FILES, Batch, batches, spread
from cloudtrain.transfer.push import project_tree, push_project
from cloudtrain.transfer.tree import Entry
from tests.support.sshd import Sshd, stopped
from tests.transfer.test_push import contents


def many(folder: Path, files: int) -> None:
    for number in range(files):
        if number % 500 == 0:
            part = folder / f"part-{number // 500:03d}"
            part.mkdir(parents=True)
        (part / f"some-longer-name-{number:06d}.txt").write_bytes(b"%d" % number)  # pyright: ignore


MEMORY = r"""
import re, sys
from pathlib import Path
from cloudtrain.events import Silent
from cloudtrain.models.config import Config
from cloudtrain.models.machine import SshTarget
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import connect
from cloudtrain.transfer.push import push_project
folder, port, user, base = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
target = SshTarget(address="127.0.0.1", port=port, user=user, key=folder / "key", known_hosts=folder / "known_hosts", alias="machine")
with connect(target) as remote:
    report = push_project(remote, Config(), base, Layout(str(folder / "home" / "run")), Silent())
    again = push_project(remote, Config(), base, Layout(str(folder / "home" / "run")), Silent())
# Not getrusage: its maximum goes on from that of the process that started this one.
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print(report.sent_files, again.sent_files, int(peak[1]) // 1024)
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: two hundred thousand files are much for a disk."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="cts", dir=shm if shm.is_dir() else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_hundred_thousand_files(memory: Path) -> None:
    """The process stays below 200 MB, the first time and when nothing changed."""
    base = memory / "base"
    many(base, 100_000)
    began = time.process_time()
    assert len(project_tree(Config(), base).files) == 100_000
    assert time.process_time() - began < 20, "scanning is tens of microseconds a file"
    with stopped(Sshd(memory / "machine")) as machine:
        words = [str(machine.folder), str(machine.port), machine.target.user, str(base)]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *words], stdout=subprocess.PIPE, text=True, check=True, timeout=280
        )
    sent, again, megabytes = map(int, done.stdout.split())
    assert (sent, again) == (100_000, 0)
    assert megabytes < 200


@pytest.mark.parametrize("delay_ms", [300])
def test_nothing_changed_takes_three_round_trips(
    machine: Sshd, layout: Layout, base: Path, delay_ms: float
) -> None:
    many(base, 300)
    line = Link(("127.0.0.1", machine.port), delay_ms / 1000, 50e6)
    thread = threading.Thread(target=line.serve, daemon=True)
    thread.start()
    try:
        with connect(replace(machine.target, port=line.port)) as remote:
            push_project(remote, Config(), base, layout, Silent())
            began = time.monotonic()
            assert push_project(remote, Config(), base, layout, Silent()).sent_files == 0
            took = time.monotonic() - began
    finally:
        line.stop.set()
        thread.join()
    assert took < 3 * delay_ms / 1000 + 0.6, "the rest is a local scan, and bash there"


def test_a_few_of_many(machine: Sshd, layout: Layout, base: Path) -> None:
    """100 changed of 20,000 move the bytes of 100 over the line, and no name twice."""
    many(base, 20_000)
    line = Link(("127.0.0.1", machine.port), 0.001, 100e6)
    thread = threading.Thread(target=line.serve, daemon=True)
    thread.start()
    try:
        with connect(replace(machine.target, port=line.port)) as remote:
            push_project(remote, Config(), base, layout, Silent())
            for number in range(0, 20_000, 200):
                path = base / f"part-{number // 500:03d}" / f"some-longer-name-{number:06d}.txt"
                path.write_bytes(b"changed, and longer than before")
            before = line.there.carried
            assert push_project(remote, Config(), base, layout, Silent()).sent_files == 100
            moved = line.there.carried - before
    finally:
        line.stop.set()
        thread.join()
    assert moved < 400_000, "a hundred small files, and the packed list of names"
    assert contents(Path(layout.project)) == contents(base)


def test_lanes_are_added_by_measure() -> None:
    """Held by its window: more. Not held, and more brought nothing: enough."""
    fat = Ladder(rtt=0.15)
    held = 2 * CHANNEL / 0.15
    assert fat.up(held * 0.9, 2)
    assert fat.up(held * 1.8, 4)
    assert not fat.up(held * 1.85, 8)
    thin = Ladder(rtt=0.08)
    assert not thin.up(12_500_000, 2)
    short = Ladder(rtt=0.001)
    assert not short.up(120_000_000, 2)


@pytest.mark.parametrize("lacking", ["room", "ssh"])
def test_a_push_goes_on_where_openssh_cannot_begin(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """No room for its socket here, or no process: the control connection carries it all."""
    base, sockets, programs = tmp_path / "base", tmp_path / "sockets", tmp_path / "bin"
    for folder in (base, sockets, programs):
        folder.mkdir()
    (base / "a.npy").write_bytes(os.urandom(24 << 20))
    (base / ".cloudtrainignore").write_text("!*.npy\n")
    (programs / "ssh").write_text("#!/nowhere\n")
    (programs / "ssh").chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone" if lacking == "room" else sockets))
    if lacking == "ssh":
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.setattr(bulk, "rsync_here", lambda: False)  # it keeps what it found
    layout = Layout(f"{sshd.home}/run")
    with connect(sshd.target) as line:
        assert push_project(line, Config(), base, layout, Silent()).sent_files == 2
    assert contents(Path(layout.project)) == contents(base)
    assert not list(sockets.iterdir())


def test_a_second_connection_begins_with_the_first_where_one_would_take_long() -> None:
    assert Ladder(rtt=0.15).first(300 << 20) == 2
    assert Ladder(rtt=0.15).first(100 << 20) == 1
    assert Ladder(rtt=0.01).first(1 << 30) == 1
    assert Ladder(rtt=0.5).first(1 << 20) == 0, "not worth a handshake"


def test_lots_of_many_files_come_evenly_among_the_others() -> None:
    """At the end of a push, the line would wait for the machine to unpack them."""
    images = [Entry(f"images/{number}", "file", 30_000) for number in range(3000)]
    labels = [Entry(f"labels/{number}", "file", 200) for number in range(3000)]
    lots = list(batches([*images, *labels]))
    mixed = spread([*lots])
    assert sorted(map(id, mixed)) == sorted(map(id, lots))
    crowded = [len(lot.entries) == BATCH_FILES for lot in mixed if isinstance(lot, Batch)]
    for upto in range(1, len(mixed) + 1):
        assert abs(sum(crowded[:upto]) - sum(crowded) * upto / len(mixed)) <= 1
