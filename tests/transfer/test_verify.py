"""`--verify` of what the machine fetched or unpacked itself: what differs comes again, the rest stays."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.events import Note
from cloudtrain.models.config import Dataset
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.push import push_dataset
from tests.support.thorough import also
from tests.transfer.conftest import Seen
from tests.transfer.test_dataset import make_dataset
from tests.transfer.test_push import contents
from tests.transfer.test_sources import archive_of, fetched_from, found, lend, make_zip

EACH = pytest.mark.parametrize("machine", ["rsync", also("tar")], indirect=True)


def rot(path: Path) -> None:
    """Change the bytes of a file as a bad disk does: neither its size nor its time."""
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def notes(seen: Seen) -> list[str]:
    said = [event.text for event in seen.events if isinstance(event, Note)]
    seen.events.clear()
    return said


@EACH
def test_what_was_unpacked(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    files = {
        "ds/data.yaml": "train: images\nval: images\n",
        "ds/images/a.jpg": "pixels",
        "ds/images/ü b": "more",
    }
    source = archive_of(base, files)
    push_dataset(line, source, layout, seen)
    data, before = Path(layout.data), contents(Path(layout.data))
    rot(data / "ds" / "images" / "a.jpg")
    (data / "ds" / "images" / "ü b").unlink()
    (data / "ds" / "labels.cache").write_text("the trainer's")
    push_dataset(line, source, layout, seen)
    assert contents(data) != before, "sizes and times do not tell"
    notes(seen)
    assert push_dataset(line, source, layout, seen, verify=True).verified
    assert notes(seen) == ["2 files of the dataset differed on the machine, and came again"]
    assert contents(data) == {**before, "ds/labels.cache": b"the trainer's"}
    stamps = {path: path.stat().st_ino for path in data.rglob("*")}
    push_dataset(line, source, layout, seen, verify=True)
    assert notes(seen) == []
    assert {path: path.stat().st_ino for path in data.rglob("*")} == stamps
    assert sorted(path.name for path in Path(layout.root).iterdir()) == ["archives", "data", "manifests"]


@EACH
def test_a_file_where_a_folder_lies_now(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    source = archive_of(base, {"images/a.jpg": "pixels"})
    push_dataset(line, source, layout, seen)
    there = Path(layout.data) / "images" / "a.jpg"
    there.unlink()
    (there / "below").mkdir(parents=True)
    push_dataset(line, source, layout, seen, verify=True)
    assert contents(Path(layout.data)) == {"images/a.jpg": b"pixels"}


@EACH
def test_an_archive_that_was_fetched(line: Remote, layout: Layout, base: Path, seen: Seen, web: str) -> None:
    page = base / "web" / "a.zip"
    make_zip(page)
    source, lent = fetched_from(f"{web}/a.zip", base, hashlib.sha256(page.read_bytes()).hexdigest())
    push_dataset(line, source, layout, seen, lent=lent)
    (there,) = (Path(layout.root) / "archives").glob("*a.zip")
    rot(there)
    rot(Path(layout.data) / "a.csv")
    notes(seen)
    push_dataset(line, source, layout, seen, lent=lent, verify=True)
    assert notes(seen) == ["1 file of the dataset differed on the machine, and came again"] * 2
    assert there.read_bytes() == page.read_bytes()
    assert contents(Path(layout.data)) == {"a.csv": b"1"}


@EACH
def test_an_archive_of_which_no_hash_is_known(
    line: Remote, layout: Layout, base: Path, seen: Seen, web: str
) -> None:
    make_zip(base / "web" / "a.zip")
    source, lent = fetched_from(f"{web}/a.zip", base)
    push_dataset(line, source, layout, seen, lent=lent)
    rot(Path(layout.data) / "a.csv")
    notes(seen)
    push_dataset(line, source, layout, seen, lent=lent, verify=True)
    unproven, differed = notes(seen)
    assert "was not compared" in unproven
    assert differed.startswith("1 file ")
    assert contents(Path(layout.data)) == {"a.csv": b"1"}


@EACH
def test_objects(line: Remote, layout: Layout, base: Path, seen: Seen, s3: Any) -> None:
    make_dataset(base / "raw", images=3)
    for path in (base / "raw").rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "data", f"set/{path.relative_to(base / 'raw').as_posix()}")
    source = found(Dataset(source="s3://data/set/"), base)
    push_dataset(line, source, layout, seen, lent=lend(source.where))
    data, before = Path(layout.data), contents(Path(layout.data))
    rot(next((data / "images").rglob("*.png")))
    shutil.rmtree(data / "labels")
    notes(seen)
    push_dataset(line, source, layout, seen, lent=lend(source.where), verify=True)
    (said,) = notes(seen)
    assert "of the dataset differed" in said
    assert contents(data) == before


@EACH
def test_what_a_command_brought_is_said(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    source = found(Dataset(command="echo 1 > a.csv"), base)
    push_dataset(line, source, layout, seen)
    assert not push_dataset(line, source, layout, seen, verify=True).verified
    assert "nothing to compare" in notes(seen)[-1]
