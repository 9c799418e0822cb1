"""What a push is about to put on the machine, as values.

A `Tree` is the one picture that scanning makes and that everything after it uses:
the digest that says "nothing changed", the record the machine keeps, the set of
files to send. Only plain files, links and empty folders exist here; names are
POSIX paths relative to the tree's root on the machine, undecodable bytes kept by
`surrogateescape`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["file", "link", "dir"]
What = Literal["project", "dataset", "model"]
RECENT_S = 60
"""How young a file must be, once everything was looked at, for another change in its second to be possible:
longer than looking takes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to have on the machine.

    `source` is where a file's bytes are here, None for text made by cloudtrain
    (`content`), links and empty folders. Sizes in bytes, times in nanoseconds since
    the epoch.
    """

    path: str
    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0o644
    source: str | None = None
    link: str = ""
    content: bytes = b""

    @property
    def raw(self) -> bytes:
        """The path as the bytes it has on disk."""
        return os.fsencode(self.path)

    @property
    def mtime(self) -> int:
        """Whole seconds: what every archive format and `stat` agree on."""
        return self.mtime_ns // 1_000_000_000

    @property
    def nanoseconds(self) -> int:
        """What whole seconds leave of its time."""
        return self.mtime_ns % 1_000_000_000

    @property
    def executable(self) -> bool:
        """Whether its owner may run it."""
        return bool(self.mode & 0o100)


@dataclass(frozen=True)
class Tree:
    """Everything one push covers, sorted by path. `left_out` says what it does not, and why."""

    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()
    follow: bool = False
    """Whether local links were followed, so that what they point to is sent."""
    recent_ns: int = 0
    """From when on a change may fall into the same second as another one; 0: none can."""

    @cached_property
    def files(self) -> tuple[Entry, ...]:
        """The plain files."""
        return tuple(entry for entry in self.entries if entry.kind == "file")

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, sizes, times, modes and link targets: equal means unchanged."""
        total = hashlib.sha256()
        for entry in self.entries:
            fields = (entry.kind, str(entry.size), str(entry.mtime_ns), str(entry.executable), entry.link)
            total.update("\0".join(fields).encode("utf-8", "surrogateescape"))
            total.update(b"\0" + entry.raw + b"\0")
            total.update(hashlib.sha256(entry.content).digest() if entry.content else b"")
        return total.hexdigest()

    @cached_property
    def stat_digest(self) -> str:
        """SHA-256 that the machine's `stat` of the same files must give (see manifest.py)."""
        total = hashlib.sha256()
        for entry in self.files:
            total.update(b"%d %d " % (entry.size, entry.mtime) + entry.raw + b"\0")
        return total.hexdigest()

    @cached_property
    def listed(self) -> str:
        """SHA-256 over the kinds and names of everything, whatever is in it (see manifest.py)."""
        rows = sorted(entry.kind[0].encode() + entry.raw + b"\0" for entry in self.entries)
        return hashlib.sha256(b"".join(rows)).hexdigest()

    @cached_property
    def names(self) -> bytes:
        """The record for the machine: `f`, `l` or `d` and the path, each ended by NUL, gzipped.

        The machine keeps whole seconds. Of a file that was young when it was looked at, the record
        has the nanoseconds too (`r`), or a change in the same second, of the same size, would not show.
        """
        return gzip.compress(b"".join(self._records()), compresslevel=1, mtime=0)

    def _records(self) -> Iterator[bytes]:
        for entry in self.entries:
            yield entry.kind[0].encode() + entry.raw + b"\0"
            if entry.kind == "file" and entry.source is not None and entry.mtime_ns >= self.recent_ns > 0:
                yield b"r%d 0 " % entry.nanoseconds + entry.raw + b"\0"


def tree_of(entries: list[Entry], left_out: list[str], *, follow: bool = False) -> Tree:
    """Sort and freeze a tree; of two entries for one path the first wins."""
    unique: dict[str, Entry] = {}
    for entry in entries:
        unique.setdefault(entry.path, entry)
    ordered = sorted(unique.values(), key=lambda entry: entry.raw)
    return Tree(tuple(ordered), tuple(left_out), follow, time.time_ns() - RECENT_S * 1_000_000_000)


def made(path: str, content: bytes) -> Entry:
    """Return an entry for text that exists only on the machine.

    Its time is derived from its bytes, so that equal text is equal and a change shows.
    """
    stamp = 1_600_000_000 + int.from_bytes(hashlib.sha256(content).digest()[:3], "big")
    return Entry(path, "file", len(content), stamp * 1_000_000_000, content=content)


def human(size: float) -> str:
    """Return a size in bytes for people: `1.4 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
