"""Files as the bytes that a lane carries: a few small ones as a tar, a piece of a big one as it is.

The length of everything is known before its first byte, so a file that changes
or vanishes meanwhile is cut or padded; then it gets another time, or its piece is
taken back, so that nobody takes it for the file, and it is sent again.
"""

from __future__ import annotations

import os
import tarfile
import time
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from cloudtrain.errors import TransferError
from cloudtrain.transfer.tree import Entry

BIG = 4 << 20
"""Bytes from which a file goes in pieces, each of which is kept when the line breaks."""
PIECE = 8 << 20
BATCH_BYTES = 3 << 20
BATCH_FILES = 400
SAMPLE = 64 << 10
READ = 1 << 18
FASTER = 3.0
"""How many times the line's speed compressing must have, so that it never holds it up."""
BLOCK = 512
_TYPES = {"file": b"0", "dir": b"5", "link": b"2"}


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that travel as one tar."""

    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of the files in it."""
        return sum(entry.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a big file; `id` names the part file on the machine."""

    entry: Entry
    id: str
    offset: int
    size: int
    torn: set[str] = field(default_factory=set[str], compare=False, repr=False)
    """Ids of files of which a piece could not be sent as it was listed; one for all pieces of a push."""


Task = Batch | Piece


def batches(entries: Iterable[Entry], limit: int = BATCH_BYTES) -> Iterator[Batch]:
    """Group small files in their order."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        group.append(entry)
        size += entry.size + BLOCK
        if size >= limit or len(group) >= BATCH_FILES:
            yield Batch(tuple(group))
            group, size = [], 0
    if group:
        yield Batch(tuple(group))


def spread(tasks: list[Task]) -> list[Task]:
    """Mix lots of many small files evenly among the others.

    They cost the machine's time, the others the line's: one after the other, each would wait for the other.
    """
    crowded = [task for task in tasks if isinstance(task, Batch) and len(task.entries) >= BATCH_FILES]
    roomy = [task for task in tasks if not isinstance(task, Batch) or len(task.entries) < BATCH_FILES]
    placed = [(number / len(some), task) for some in (crowded, roomy) for number, task in enumerate(some, 1)]
    return [task for _, task in sorted(placed, key=lambda one: one[0])]


def pieces(
    entry: Entry,
    id: str,  # noqa: A002
    have: frozenset[tuple[int, int]],
    torn: set[str],
) -> Iterator[Piece]:
    """Cut a big file; what the machine has of it, and what is a hole here, is left out."""
    for offset in range(0, entry.size, PIECE):
        size = min(PIECE, entry.size - offset)
        if (offset, size) not in have and not _hole(entry, offset, size):
            yield Piece(entry, id, offset, size, torn)


def tar(entries: Iterable[Entry]) -> bytearray:
    """Return a whole tar archive. Raises `TransferError` for a file that cannot be read.

    It names the folders of its files: of two tars that both make a folder which neither names,
    the slower one fails (GNU tar takes the other's folder for a name that cannot be made).
    """
    out = bytearray()
    made: set[str] = set()
    for entry in entries:
        for folder in _above(entry.path, made):
            out += header(Entry(folder, "dir", mtime_ns=entry.mtime_ns))
        data = read(entry, 0, entry.size) if entry.kind == "file" else b""
        if data is None:  # its time will not fit, so that nobody takes it for the file
            other = 0 if entry.mtime else 1_000_000_000
            entry, data = replace(entry, mtime_ns=other), bytes(entry.size)  # noqa: PLW2901
        out += header(entry)
        out += data
        out += bytes(-len(data) % BLOCK)
    out += bytes(2 * BLOCK)
    return out


def _above(path: str, made: set[str]) -> list[str]:
    """Return the folders above a path that are not in `made` yet, topmost first, and add them."""
    new: list[str] = []
    while (path := path.rpartition("/")[0]) and path not in made:
        made.add(path)
        new.append(path)
    return new[::-1]


def header(entry: Entry) -> bytes:
    """Return the tar header of one entry; long or odd names the GNU way."""
    name, link = os.fsencode(entry.path), os.fsencode(entry.link)
    mode = entry.mode & 0o777 if entry.kind == "file" else 0o755
    size = entry.size if entry.kind == "file" else 0
    if len(name) > 99 or len(link) > 99 or size >= 8**11 or not 0 <= entry.mtime < 8**11:
        return _long_header(entry, mode, size)
    fields = b"%s\0%07o\0%07o\0%07o\0%011o\0%011o\0        %s%s\0ustar  \0" % (
        name.ljust(99, b"\0"), mode, 0, 0, size, entry.mtime, _TYPES[entry.kind], link.ljust(99, b"\0"),
    )  # fmt: skip
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:].ljust(BLOCK - 156, b"\0")


def _long_header(entry: Entry, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.mode, info.size, info.mtime, info.linkname = mode, size, entry.mtime, entry.link
    info.type = _TYPES[entry.kind]
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def read(entry: Entry, offset: int, size: int) -> bytes | None:
    """Return exactly `size` bytes of a file; None when it is not there as it was listed.

    Raises `TransferError` for one that cannot be read.
    """
    if entry.source is None:
        return entry.content[offset : offset + size]
    with _opened(entry) as file:
        data = b"" if file is None else _pread(file, size, offset)
        return data if file is not None and len(data) == size and _is(file, entry) else None


def stream(piece: Piece) -> Iterator[bytes]:
    """Return a piece's bytes in small reads, padded; where they are not the file's, it is `torn` at the end."""
    entry, end = piece.entry, piece.offset + piece.size
    if entry.source is None:
        yield entry.content[piece.offset : end]
        return
    with _opened(entry) as file:
        whole = file is not None
        for offset in range(piece.offset, end, READ):
            size = min(READ, end - offset)
            data = b"" if file is None else _pread(file, size, offset)
            whole = whole and len(data) == size and (offset + size < end or _is(file, entry))
            if not whole:
                piece.torn.add(piece.id)
            yield data.ljust(size, b"\0")


@contextmanager
def _opened(entry: Entry) -> Generator[int | None]:
    """Open a file; None when there is none now. Raises `TransferError`, in its block too."""
    file: int | None = None
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            file = os.open(entry.source or "", os.O_RDONLY)
        yield file
    except OSError as error:
        raise _unreadable(entry, error) from error
    finally:
        if file is not None:
            os.close(file)


def _pread(file: int, size: int, offset: int) -> bytes:
    data = os.pread(file, size, offset)
    while len(data) < size and (more := os.pread(file, size - len(data), offset + len(data))):
        data += more
    return data


def _is(file: int | None, entry: Entry) -> bool:
    """Whether an open file still is what was listed. Asked after reading: a later change shows afterwards."""
    if file is None:
        return False
    info = os.fstat(file)
    return (info.st_size, info.st_mtime_ns) == (entry.size, entry.mtime_ns)


@dataclass(slots=True)
class Squeeze:
    """Whether compressing pays: on this data, at this line's speed. Told by trying 64 KiB of it.

    Lanes compress beside each other and beside the line, so it pays as soon as it makes
    less of it, several times faster than the line carries. Data that nothing makes less of
    has archive headers between its files still: runs of zeros, which cost next to nothing to find.
    """

    rate: float = 0.0
    """Bytes a second that the line has carried of late; 0 while nobody knows."""

    def way(self, data: bytes | bytearray) -> int | None:
        """Return the strategy to compress with, as zlib names it; None when it does not pay."""
        if not self.rate or len(data) < SAMPLE // 16:
            return None
        middle = max(0, len(data) // 2 - SAMPLE // 2)
        sample = bytes(data[middle : middle + SAMPLE])
        for way, enough in ((zlib.Z_DEFAULT_STRATEGY, 0.9), (zlib.Z_RLE, 0.99)):
            began = time.perf_counter()
            packed = len(gzip(sample, way))
            spent = time.perf_counter() - began
            if packed < enough * len(sample) and spent < len(sample) / self.rate / FASTER:
                return way
        return None


def gzip(data: bytes | bytearray, way: int) -> bytes:
    """Return a gzip member, quickly rather than small."""
    packer = zlib.compressobj(1, wbits=31, strategy=way)
    return packer.compress(data) + packer.flush()


def _hole(entry: Entry, offset: int, size: int) -> bool:
    """Whether a part of a sparse file holds nothing. The first piece is always sent."""
    if entry.source is None or offset == 0:
        return False
    try:
        file = os.open(entry.source, os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.lseek(file, offset, os.SEEK_DATA) >= offset + size
    except OSError as error:
        return error.errno == 6  # ENXIO: no data from here to the end
    finally:
        os.close(file)


def _unreadable(entry: Entry, error: OSError) -> TransferError:
    return TransferError(
        f"cannot read `{entry.source}`: {error.strerror}",
        hint="change its permissions, or leave it out with `project.exclude`",
    )
