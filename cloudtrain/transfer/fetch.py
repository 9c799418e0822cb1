"""One handful of files from the machine, into place only when proven.

Each goes to a part file, hashed while it is written; then the machine hashes the
same bytes and says what the file is now; a checkpoint is read as the container
it is; then fsync and rename. So a file at home is always one that once was whole
on the machine, and a worse one never replaces it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from cloudtrain.errors import TornCheckpoint, TransferError
from cloudtrain.ssh.remote import CHUNK, Channel, Remote
from cloudtrain.transfer.containers import prove
from cloudtrain.transfer.index import Index, Record, stamp
from cloudtrain.transfer.listing import Found
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import Meter, Sink, exchange

STREAM = "tar -P --null --no-recursion --hard-dereference --format=gnu -cf - -T - || [ $? -le 2 ]"
"""Files that vanish or change give codes 1 and 2; what arrived is judged by its hash."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part file: what was received of a file."""

    found: Found
    path: Path
    size: int
    sha256: str


def fetch_lot(
    remote: Remote, lot: tuple[Found, ...], destination: Path, index: Index, meter: Meter
) -> set[str]:
    """Fetch some files over one channel; return the names of those that were accepted.

    Raises `ConnectError` when the line breaks: what came before in this lot is
    dropped, what was accepted before stays. `TransferError` when there is no room here.
    """
    parts: list[Part] = []
    try:
        try:
            _receive(remote, lot, destination, parts, meter)
        except OSError as error:
            raise TransferError(
                f"cannot write below `{destination}`: {error.strerror}", hint="make room there"
            ) from error
        return _accept_all(remote, parts, destination, index)
    finally:
        for found in lot:
            _part(destination, found).unlink(missing_ok=True)


def _receive(
    remote: Remote, lot: tuple[Found, ...], destination: Path, parts: list[Part], meter: Meter
) -> None:
    by_path = {found.remote: found for found in lot}

    def feed(sink: Sink) -> None:
        sink.write(b"".join(os.fsencode(found.remote) + b"\0" for found in lot))

    def take(channel: Channel) -> None:
        try:
            with tarfile.open(
                fileobj=cast("IO[bytes]", channel), mode="r|", bufsize=CHUNK, errors="surrogateescape"
            ) as archive:
                for member in archive:
                    found = by_path.get(member.name)
                    stream = archive.extractfile(member) if found is not None and member.isreg() else None
                    if found is not None and stream is not None:
                        parts.append(_write(found, stream, member.size, destination, meter))
        except tarfile.TarError:
            pass  # torn off in the middle: the exit code says why, and the hash what is missing
        while channel.read():
            pass

    exchange(remote, STREAM, feed=feed, take=take)


def _part(destination: Path, found: Found) -> Path:
    return destination / f"{found.name}.part"


def _write(found: Found, stream: IO[bytes], size: int, destination: Path, meter: Meter) -> Part:
    path = _part(destination, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    total = hashlib.sha256()
    with path.open("wb") as file:
        while chunk := stream.read(CHUNK):
            file.write(chunk)
            total.update(chunk)
            meter.add(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return Part(found, path, size, total.hexdigest())


def _accept_all(remote: Remote, parts: list[Part], destination: Path, index: Index) -> set[str]:
    """Compare hashes with the machine in one round trip, and take what is whole."""
    if not parts:
        return set()

    def feed(sink: Sink) -> None:
        for part in parts:
            sink.write(b"%d\0" % part.size + os.fsencode(part.found.remote) + b"\0")

    by_path = {part.found.remote: part for part in parts}
    accepted: set[str] = set()
    for record in exchange(remote, script("pull-verify"), feed=feed).split(b"\0")[:-1]:
        sha256, size, mtime, path = os.fsdecode(record).split(" ", 3)
        part = by_path.get(path)
        if part is not None and part.sha256 == sha256 and _whole(part, int(size), mtime):
            _take(part, destination, index, still=(int(size), mtime) == (part.size, part.found.mtime))
            accepted.add(part.found.name)
    return accepted


def _whole(part: Part, size: int, mtime: str) -> bool:
    """Whether a part may be accepted, its hash being right.

    Weights must be the very file that was listed, standing still from then until
    after they were hashed: their epoch is told from that moment.
    """
    found = part.found
    if found.grows:
        return True
    if size != part.size:
        return False
    if not found.weights:
        return True
    try:
        prove(part.path, found.name)
    except TornCheckpoint:
        return False
    return (found.size, found.mtime) == (size, mtime)


def _take(part: Part, destination: Path, index: Index, *, still: bool) -> None:
    final = destination / part.found.name
    part.path.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    mtime = part.found.mtime if still else ""
    here = stamp(final) or (0, 0)
    index.accept(part.found.name, Record(part.found.remote, part.size, mtime, part.sha256, here))
