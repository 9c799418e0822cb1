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
from contextlib import ExitStack
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
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import SILENCE_S, Meter, Sink, exchange

LANES = 4
AHEAD = 2
"""Pieces that a lane has asked for and not got: so that it never waits for a round trip."""
BIG = 1_000_000
"""Bytes from which a file is proven by itself, as soon as it is here."""
OWN_LINE = 48 << 20
"""Bytes that are worth a handshake of OpenSSH, which carries several times what the control line does."""


@dataclass
class Fetch:
    """Some files on their way here, together."""

    remote: Remote
    destination: Path
    index: Index
    meter: Meter
    accepted: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self._spans: deque[Span] = deque()
        self._lots: list[list[Part]] = []
        self._lock = threading.Lock()
        self._error: CloudtrainError | None = None

    def run(self, files: tuple[Found, ...]) -> set[str]:
        """Fetch; return the names of those that were accepted.

        Raises `ConnectError` when the line breaks and `TransferError` when there is no room
        here: what was accepted stays, and what came of the others is there for the next time.
        """
        try:
            parts = [part_of(found, self.destination, self.index) for found in files]
            forget_others(self.destination, parts)
        except OSError as error:
            raise self.no_room(error) from error
        small = [part for part in parts if part.size < BIG]
        self._lots = [[part] for part in parts if part.size >= BIG] + ([small] if small else [])
        spans = [span for lot in self._lots for part in lot for span in part.missing()]
        self.meter.skip(sum(part.size for part in parts) - sum(span.size for span in spans))
        self._spans.extend(spans)
        try:
            for lot in list(self._lots):
                self.settle(lot)  # those that had come whole, and were not proven yet
        except OSError as error:
            raise self.no_room(error) from error
        self.carry(sum(span.size for span in spans))
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
            self.fail(self.no_room(error))

    def work(self, lane: Command) -> None:
        """Ask for pieces and put them where they belong."""
        asked: deque[Span] = deque()
        while True:
            while len(asked) < AHEAD and (span := self.take()) is not None:
                words = (str(span.offset), str(span.size), span.part.found.remote)
                lane.write(b"".join(os.fsencode(word) + b"\0" for word in words))
                asked.append(span)
            if not asked:
                return
            span = asked.popleft()
            self.receive(lane, span)
            span.part.came(span)
            with self._lock:
                done = [lot for lot in self._lots if span.part in lot]
            for lot in done:
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

    def take(self) -> Span | None:
        """Return the next piece, None when there is none or all is lost."""
        with self._lock:
            return self._spans.popleft() if self._spans and self._error is None else None

    def settle(self, lot: list[Part]) -> None:
        """Prove a lot that has come whole, once."""
        with self._lock:
            if lot not in self._lots or not all(part.whole for part in lot):
                return
            self._lots.remove(lot)
        names = accept(self.remote, lot, self.destination, self.index)
        with self._lock:
            self.accepted |= names
        self.meter.add(0, len(names))

    def fail(self, error: CloudtrainError) -> None:
        """Keep the first error; the other lanes stop after their piece."""
        with self._lock:
            self._error = self._error or error

    def no_room(self, error: OSError) -> TransferError:
        """Return the error for a disk here that does not take it."""
        return TransferError(
            f"cannot write below `{self.destination}`: {error.strerror}",
            hint="make room there; what came until now is kept",
        )


def accept(remote: Remote, parts: list[Part], destination: Path, index: Index) -> set[str]:
    """Compare hashes with the machine in one round trip, and take what is whole."""
    own = {part.found.remote: part.sha256() for part in parts}

    def feed(sink: Sink) -> None:
        for part in parts:
            sink.write(b"%d\0" % part.size + os.fsencode(part.found.remote) + b"\0")

    by_path = {part.found.remote: part for part in parts}
    accepted: set[str] = set()
    for record in exchange(remote, script("pull-verify"), feed=feed).split(b"\0")[:-1]:
        if not record:
            continue  # a sign of life
        sha256, size, mtime, path = os.fsdecode(record).split(" ", 3)
        part = by_path.get(path)
        if part is not None and own[path] == sha256 and _whole(part, int(size), mtime):
            still = (int(size), mtime) == (part.size, part.found.mtime)
            _take(part, destination, index, sha256, still=still)
            accepted.add(part.found.name)
    for part in parts:
        if part.start and part.found.name not in accepted:
            index.rewrite(part.found.name)
        part.drop()  # in its place by now, or of no use
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
