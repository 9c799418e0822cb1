"""Checkpoints are secured whole or not at all, whatever the trainer does meanwhile."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.training.machine.checkpoints import restore, secure, secured, trim, whole

WRITER = """
import io, random, sys, zipfile
path, chance, epoch = sys.argv[1], random.Random(7), 0
while True:
    epoch += 1
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as container:
        container.writestr("epoch", str(epoch))
        container.writestr("weights", chance.randbytes(chance.randrange(1, 400_000)))
    data, at = buffer.getvalue(), 0
    with open(path, "wb", buffering=0) as file:  # in place, as both trainers do, in pieces
        while at < len(data):
            step = chance.randrange(1, 200_000)
            file.write(data[at:at + step])
            at += step
"""


def checkpoint(path: Path, epoch: int, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as container:
        container.writestr("epoch", str(epoch))
        container.writestr("weights", random.Random(epoch).randbytes(size))
    return path


def test_copies_of_a_file_that_is_rewritten_all_the_time_are_whole(tmp_path: Path) -> None:
    source, folder = tmp_path / "last.pt", tmp_path / "secured"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(source)])
    try:
        while not source.exists():
            assert writer.poll() is None
        made = 0
        for _ in range(300):
            copy = secure(source, folder, epoch=None, metrics={})
            if copy is not None:
                made += 1
                with zipfile.ZipFile(copy) as container:
                    assert container.testzip() is None
                    assert int(container.read("epoch")) > 0
        assert made > 0, "nothing was secured: the test proves nothing"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert not list(folder.glob(".*.part"))
    print(f"{made} of 300 copies taken, all whole")  # noqa: T201


@given(st.integers(0, 1200))
def test_whatever_is_cut_off_is_not_whole(left: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(Path(folder, "last.pt"), 1)
        data = path.read_bytes()
        path.write_bytes(data[: min(left, len(data) - 1)])
        assert not whole(path)
        assert secure(path, Path(folder, "s"), epoch=1, metrics={}) is None
        path.write_bytes(data)
        assert whole(path)


def test_safetensors_by_its_header(tmp_path: Path) -> None:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"a": "b"}}
    )
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))
    assert whole(path)
    for left in (0, 7, 20, len(header) + 8, len(header) + 15):
        path.write_bytes((struct.pack("<Q", len(header)) + header.encode() + bytes(8))[:left])
        assert not whole(path)


def test_the_last_two_of_a_kind_are_kept_and_are_no_links(tmp_path: Path) -> None:
    source, folder, session = tmp_path / "weights" / "last.pt", tmp_path / "secured", tmp_path / "session"
    session.mkdir()
    for epoch in range(1, 6):
        checkpoint(source, epoch)
        copy = secure(
            source, folder, epoch=epoch, metrics={"mAP": epoch / 10, "bad": float("nan")}, session=session
        )
        assert copy is not None
        assert not copy.samefile(source)
    other = checkpoint(tmp_path / "ema" / "model.pt", 9)
    assert secure(other, folder, epoch=None, metrics={})
    assert [known["epoch"] for _, known in secured(folder)] == [5, 4, None]
    said = json.loads((session / "secured").read_text())
    assert (said["epoch"], said["metrics"], Path(said["path"]).name) == (5, {"mAP": 0.5}, "00005-last.pt")
    assert len(list(folder.iterdir())) == 6


def without_room(work: str, *paths: Path) -> str:
    """Do `work` with `paths` in a process that may write 100 kB a file; return what it said."""
    code = (
        f"import sys; from pathlib import Path; from cloudtrain.training.machine.checkpoints import *\n{work}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    return done.stderr


def test_a_full_disk_leaves_nothing_half_made_and_the_old_ones(tmp_path: Path) -> None:
    source, folder = checkpoint(tmp_path / "last.pt", 1), tmp_path / "secured"
    assert secure(source, folder, epoch=1, metrics={})
    checkpoint(source, 2, size=500_000)
    work = "secure(Path(sys.argv[1]), Path(sys.argv[2]), epoch=2, metrics={})"
    assert "OSError" in without_room(work, source, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["00001-last.pt", "00001-last.pt.json"]
    assert [known["epoch"] for _, known in secured(folder)] == [1]


def test_what_cannot_be_put_back_leaves_nothing_half_made(tmp_path: Path) -> None:
    source, target = checkpoint(tmp_path / "secured.pt", 2, size=500_000), tmp_path / "weights" / "last.pt"
    assert "OSError" in without_room("restore(Path(sys.argv[1]), Path(sys.argv[2]))", source, target)
    assert list(target.parent.iterdir()) == []
    restore(source, target)
    assert [path.name for path in target.parent.iterdir()] == ["last.pt"]


def test_a_copy_without_its_sidecar_or_of_another_size_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "secured"
    checkpoint(folder / "00001-last.pt", 1)
    assert secured(folder) == []
    kept = secure(checkpoint(tmp_path / "last.pt", 2), folder, epoch=2, metrics={})
    assert kept is not None
    with kept.open("ab") as file:
        file.write(b"x")
    assert secured(folder) == []


ROWS = "epoch,time,loss\n1,2,0.9\n2,4,0.8\n"


@pytest.mark.parametrize(
    ("after", "last", "kept"),
    [
        ("", 2, [1, 2]),
        ("3,6,0.7\n", 2, [1, 2]),
        ("2,1,0.7\n", 2, [1, 2]),
        ("3,6,0.7\n3,1,0.6\n", 3, [1, 2, 3]),
        ("3,6,0.", 3, [1, 2, 3]),
        ("3,6", 3, [1, 2]),
        ("", 0, []),
        ("\n\n", 2, [1, 2]),
    ],
)
def test_rows_after_the_checkpoint_go(tmp_path: Path, after: str, last: int, kept: list[int]) -> None:
    results = tmp_path / "results.csv"
    results.write_text(ROWS + after)
    trim(results, last)
    lines = results.read_text().splitlines()
    assert lines[0] == "epoch,time,loss"
    assert [int(line.split(",")[0]) for line in lines[1:]] == kept
    assert trim(results, last) is False


def test_of_two_rows_the_last_counts(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    results.write_text(ROWS + "2,1,0.5\n")
    trim(results, 2)
    assert results.read_text().endswith("2,1,0.5\n")
    assert not os.path.exists(tmp_path / ".results.csv.part")  # noqa: PTH110
