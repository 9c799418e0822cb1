"""Files that are on their way here, and how far each is: what a broken fetch leaves for the next.

Below `.parts` of a destination lies for each file one sparse part and a list of the
pieces that are in it. Nothing there is ever taken for a file: it becomes one only by its hash.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloudtrain.transfer.index import Index
from cloudtrain.transfer.listing import Found

FOLDER = ".parts"
PIECE = 4 << 20
"""Bytes that are fetched, and kept when the line breaks, at once."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of one file."""

    part: Part
    offset: int
    size: int


@dataclass(slots=True)
class Part:
    """One file on its way. `size` is what was listed."""

    found: Found
    path: Path
    have: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    start: int = 0
    """Bytes at the beginning that came from the copy that is here already."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return self.found.size

    def missing(self) -> Iterator[Span]:
        """Return the pieces that have not come yet."""
        for offset in range(self.start, self.size, PIECE):
            size = min(PIECE, self.size - offset)
            if (offset, size) not in self.have:
                yield Span(self, offset, size)

    @property
    def whole(self) -> bool:
        """Whether every piece is here."""
        return next(self.missing(), None) is None

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes where they belong."""
        file = os.open(self.path, os.O_WRONLY)
        try:
            while data:
                done = os.pwrite(file, data, offset)
                data, offset = data[done:], offset + done
        finally:
            os.close(file)

    def came(self, span: Span) -> None:
        """Note a piece that is here."""
        with self._lock:
            self.have.add((span.offset, span.size))
            with _list(self.path).open("a") as file:
                file.write(f"{span.offset} {span.size}\n")

    def sha256(self) -> str:
        """Hash what came, flushed."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()

    def drop(self) -> None:
        """Forget all of it."""
        self.path.unlink(missing_ok=True)
        _list(self.path).unlink(missing_ok=True)


def part_of(found: Found, destination: Path, index: Index) -> Part:
    """Begin a part, or go on with the one that is there."""
    text = f"{found.remote}\0{found.size}\0{found.mtime}".encode("utf-8", "surrogateescape")
    path = destination / FOLDER / hashlib.sha256(text).hexdigest()[:20]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Part(found, path)
    if path.exists() and path.stat().st_size == found.size:
        part.have = _had(_list(path))
    else:
        part.drop()
        part.start = _begun(part, destination, index)
        with path.open("r+b" if part.start else "wb") as file:
            file.truncate(found.size)
    return part


def forget_others(destination: Path, parts: list[Part]) -> None:
    """Remove the parts of files that are not wanted any more."""
    kept = {name for part in parts for name in (part.path.name, _list(part.path).name)}
    folder = destination / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _begun(part: Part, destination: Path, index: Index) -> int:
    """Take over the copy that is here of a file that only grows; return its length."""
    name = part.found.name
    record = index.record(name) if part.found.grows and index.begins(name) else None
    if record is None or record.remote != part.found.remote or not 0 < record.size <= part.size:
        return 0
    shutil.copyfile(destination / name, part.path)
    return record.size


def _list(path: Path) -> Path:
    return path.with_name(f"{path.name}.done")


def _had(file: Path) -> set[tuple[int, int]]:
    have: set[tuple[int, int]] = set()
    try:
        lines = file.read_text().split("\n")
    except (OSError, UnicodeDecodeError):
        return have
    for line in lines[:-1]:  # one without its end was being written
        words = line.split(" ")
        if len(words) == 2 and all(word.isdigit() for word in words):
            have.add((int(words[0]), int(words[1])))
    return have
