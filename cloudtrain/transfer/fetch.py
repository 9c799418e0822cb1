"""Some files from the machine, into place only when proven.

Pieces of all of them come over a few lanes at once, each to its place in a part file,
where they stay when the line breaks; then the machine hashes the same bytes and says
what the file is now; a checkpoint is read as the container it is; then fsync and rename.
So a file at home is always one that once was whole on the machine, and a worse one
never replaces it.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections import deque
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cloudtrain.errors import CloudtrainError, ConnectError, TornCheckpoint, TransferError
from cloudtrain.ssh.remote import Remote
from cloudtrain.ssh.shared import SharedLine, available
from cloudtrain.transfer.containers import prove
from cloudtrain.transfer.earlier import set_aside
from cloudtrain.transfer.index import Index, Record, stamp
from cloudtrain.transfer.lane import Command
from cloudtrain.transfer.listing import Found
from cloudtrain.transfer.parts import Part, Span, forget_others, part_of
from cloudtrain.transfer.room import cannot_write, writing
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import SILENCE_S, Meter, Sink, exchange

LANES = 4
AHEAD = 2
"""Pieces that a lane has asked for and not got: so that it never waits for a round trip."""
BIG = 1_000_000
"""Bytes from which a file is proven by itself, as soon as it is here."""
LOT = 500
"""Small files that are proven together at most: a fetch that is killed loses no more of them."""
OWN_LINE = 48 << 20
"""Bytes that are worth a handshake of OpenSSH, which carries several times what the control line does."""


@dataclass(slots=True, eq=False)
class Lot:
    """Files that are proven together. `left` counts the pieces that have not come."""

    parts: list[Part]
    left: int


@dataclass
class Fetch:
    """Some files on their way here, together."""

    remote: Remote
    destination: Path
    index: Index
    meter: Meter
    accepted: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self._spans: deque[tuple[Span, Lot]] = deque()
        self._lock = threading.Lock()
        self._error: CloudtrainError | None = None

    def run(self, files: tuple[Found, ...]) -> set[str]:
        """Fetch; return the names of those that were accepted.

        Raises `ConnectError` when the line breaks and `TransferError` when the disk here does
        not take it: what was accepted stays, and what came of the others is there for the next time.
        """
        with writing(self.destination):
            parts = [part_of(found, self.destination, self.index) for found in files]
            forget_others(self.destination, parts)
        lots: list[Lot] = []
        for some in _together(parts):
            spans = [span for part in some for span in part.missing()]
            lots.append(Lot(some, len(spans)))
            self._spans.extend((span, lots[-1]) for span in spans)
        size = sum(span.size for span, _ in self._spans)
        self.meter.skip(sum(part.size for part in parts) - size)
        with writing(self.destination):
            for lot in lots:
                if not lot.left:
                    self.settle(lot)  # these had come whole, and were not proven yet
        self.carry(size)
        if self._error is not None:
            raise self._error
        return self.accepted

    def carry(self, size: int) -> None:
        """Fetch all pieces, over the line that carries so much best."""
        with ExitStack() as stack:
            over: Remote | SharedLine = self.remote
            if size > OWN_LINE and available():
                line = stack.enter_context(SharedLine(self.remote.target))
                over = line if line.wait(30) else over
            lanes = min(LANES, len(self._spans))
            threads = [threading.Thread(target=self.drive, args=(over,), daemon=True) for _ in range(lanes)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def drive(self, over: Remote | SharedLine) -> None:
        """Work as one lane until there is nothing left."""
        command = shlex.join(["bash", "-c", script("pull-lane")])
        try:
            opened = over.open(command, timeout=SILENCE_S) if isinstance(over, Remote) else over.open(command)
            with opened as lane:
                self.work(lane)
        except CloudtrainError as error:
            self.fail(error)
        except OSError as error:
            self.fail(cannot_write(error, self.destination))
        except Exception as error:  # noqa: BLE001 - a lane that died unheard would pass for one that is done
            said = TransferError(
                f"the fetch broke: {type(error).__name__}: {error}",
                hint="run the same command again; what came until now is kept",
            )
            said.__cause__ = error
            self.fail(said)

    def work(self, lane: Command) -> None:
        """Ask for pieces and put them where they belong."""
        asked: deque[tuple[Span, Lot]] = deque()
        while True:
            while len(asked) < AHEAD and (taken := self.take()) is not None:
                span = taken[0]
                words = (str(span.offset), str(span.size), span.part.found.remote)
                lane.write(b"".join(os.fsencode(word) + b"\0" for word in words))
                asked.append(taken)
            if not asked:
                return
            span, lot = asked.popleft()
            self.receive(lane, span)
            span.part.came(span)
            with self._lock:
                lot.left -= 1
                done = not lot.left
            if done:
                self.settle(lot)

    def receive(self, lane: Command, span: Span) -> None:
        """Write one piece. Raises `ConnectError` when it ends too early."""
        offset, end = span.offset, span.offset + span.size
        while offset < end:
            chunk = lane.read(min(1 << 18, end - offset))
            if not chunk:
                raise ConnectError(
                    "the line broke while files came",
                    hint="run the same command again; it continues where it stopped",
                )
            span.part.write(offset, chunk)
            offset += len(chunk)
            self.meter.add(len(chunk))

    def take(self) -> tuple[Span, Lot] | None:
        """Return the next piece, None when there is none or all is lost."""
        with self._lock:
            return self._spans.popleft() if self._spans and self._error is None else None

    def settle(self, lot: Lot) -> None:
        """Prove a lot that has come whole."""
        names = accept(self.remote, lot.parts, self.destination, self.index)
        with self._lock:
            self.accepted |= names
        self.meter.add(0, len(names))

    def fail(self, error: CloudtrainError) -> None:
        """Keep the first error; the other lanes stop after their piece."""
        with self._lock:
            self._error = self._error or error


def _together(parts: list[Part]) -> list[list[Part]]:
    """Return the files that are proven together: big ones alone, so that each is had at once."""
    small = [part for part in parts if part.size < BIG]
    lots = [small[start : start + LOT] for start in range(0, len(small), LOT)]
    return [[part] for part in parts if part.size >= BIG] + lots


def accept(remote: Remote, parts: list[Part], destination: Path, index: Index) -> set[str]:
    """Compare hashes with the machine in one round trip, and take what is whole.

    Raises `OSError` for the first that the disk here refused, after the others were taken.
    """
    refused: dict[str, OSError] = {}
    own: dict[str, str] = {}
    for part in parts:
        with _noting(part, refused):
            own[part.found.remote] = part.sha256()
    by_path = {part.found.remote: part for part in parts if part.found.remote in own}

    def feed(sink: Sink) -> None:
        for path, part in by_path.items():
            sink.write(b"%d\0" % part.size + os.fsencode(path) + b"\0")

    accepted: set[str] = set()
    for record in exchange(remote, script("pull-verify"), feed=feed).split(b"\0")[:-1]:
        if not record:
            continue  # a sign of life
        sha256, size, mtime, path = os.fsdecode(record).split(" ", 3)
        part = by_path.get(path)
        if part is None or own[path] != sha256:
            continue
        with _noting(part, refused):
            if _whole(part, int(size), mtime):
                still = (int(size), mtime) == (part.size, part.found.mtime)
                _take(part, destination, index, sha256, still=still)
                accepted.add(part.found.name)
    index.keep()
    _clear([part for part in parts if part.found.name not in refused], accepted, index)
    for error in refused.values():
        raise error
    return accepted


@contextmanager
def _noting(part: Part, refused: dict[str, OSError]) -> Generator[None]:
    """Keep what the disk says of one file, so that the others of its lot go on."""
    try:
        yield
    except OSError as error:
        refused[part.found.name] = error


def _clear(parts: list[Part], accepted: set[str], index: Index) -> None:
    for part in parts:
        if part.start and part.found.name not in accepted:
            index.rewrite(part.found.name)
        part.drop()  # in its place by now, or of no use


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


def _take(part: Part, destination: Path, index: Index, sha256: str, *, still: bool) -> None:
    final = destination / part.found.name
    final.parent.mkdir(parents=True, exist_ok=True)
    if part.found.kind in ("best", "last"):
        before = index.record(part.found.name)
        set_aside(destination, part.found.name, before.epoch if before is not None else None)
    part.path.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    mtime = part.found.mtime if still else ""
    here = stamp(final) or (0, 0)
    index.accept(part.found.name, Record(part.found.remote, part.size, mtime, sha256, here))
