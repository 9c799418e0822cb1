"""One tree on its way to one place on the machine.

A push is one conversation over one channel: look (it ends there when nothing changed),
begin (deletions), the files, compare, record. What is small goes over that same channel;
more goes over as many lanes as the line needs; big files that only changed go by rsync,
which sends what differs in them, where both ends have it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cloudtrain.errors import ConnectError, TransferError
from cloudtrain.events import Note, Reporter
from cloudtrain.models.training import PushReport
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer import bulk
from cloudtrain.transfer.lane import Lane, open_lane, records
from cloudtrain.transfer.lanes import Lanes
from cloudtrain.transfer.manifest import Place, There, read_look
from cloudtrain.transfer.pack import BATCH_BYTES, BIG, Squeeze, Task, batches, pieces, spread
from cloudtrain.transfer.scan import left_at_home
from cloudtrain.transfer.tree import Entry, Tree, What, human
from cloudtrain.transfer.verify import differing, hidden
from cloudtrain.transfer.wire import Meter

ROUNDS = 3
"""How often files that change during a push are sent before giving up."""
HEADROOM = 64 << 20
INLINE = 1 << 20
"""Bytes up to which a push is one channel's work."""
DELTA = 8 << 20
"""Bytes of changed files from which rsync's search for what differs in them pays."""

SENDS = "`!name` in .cloudtrainignore sends one nevertheless"
NAMED = (
    ("(looks like a secret", "looks like a secret", "look like secrets", SENDS),
    ("(bigger than", "is a big file", "are big files", SENDS),
    (
        "(cannot be read",
        "cannot be read",
        "cannot be read",
        "a link to nothing, or not yours to read: mend or remove it",
    ),
)
"""What is named of what stayed at home: a mark of `left_out`, what one is, what many are, and what to do."""


@dataclass(frozen=True, slots=True)
class Load:
    """What moves when much does."""

    tasks: list[Task]
    """By lanes."""
    big: tuple[tuple[Entry, str], ...]
    """Files that come in pieces, and are put into place at the end, each with the name of its part."""
    groups: bulk.Groups
    """By rsync, which sends what differs in them."""
    there: int
    """Bytes of big files that a broken push has brought, or that are holes."""
    torn: set[str]
    """Names of parts whose file was not there, while it was sent, as it was listed."""


@dataclass(slots=True)
class Mirror:
    """One push of one kind, with its rounds."""

    remote: Remote
    place: Place
    what: What
    reporter: Reporter
    verify: bool = False
    sent: set[bytes] = field(default_factory=set[bytes])
    sent_bytes: int = 0
    arrived: tuple[int, int] = (0, 0)
    """Files and bytes that the machine counted."""
    word: str = ""
    """What all lanes of a round call themselves, so that the machine tells them from those of an older push."""

    def run(self, scan: Callable[[], Tree]) -> PushReport:
        """Make the machine have what `scan` finds. Raises `TransferError` and `ConnectError`."""
        began = time.monotonic()
        tree, wrong = Tree(()), ()
        for _ in range(ROUNDS):
            tree, whole = self.round(scan, wrong)
            if not whole:
                continue
            wrong = differing(self.remote, self.place, tree) if self.verify else ()
            if not wrong:
                self.say(tree)
                return self.report(tree, time.monotonic() - began)
            files = "1 file differs" if len(wrong) == 1 else f"{len(wrong)} files differ"
            self.reporter.emit(Note(f"{files} on the machine, and what differs is sent again", "warning"))
        raise self.unsettled(tree, wrong)

    def round(self, scan: Callable[[], Tree], wrong: tuple[Entry, ...]) -> tuple[Tree, bool]:
        """Send what differs of what `scan` finds; False when what arrived is not what was looked at."""
        began, self.word = time.monotonic(), secrets.token_hex(8)
        with ThreadPoolExecutor(1) as beside:
            scanning = beside.submit(_digested, scan)  # while the lane opens, which takes two round trips
            with open_lane(self.remote, *self.arguments) as lane:
                opened = time.monotonic() - began
                tree = scanning.result()
                asked = time.monotonic()
                lane.say("look", b"", *(("-", "-") if wrong else (tree.digest, tree.stat_digest)))
                word = lane.answer()
                # Each has more in it than the way there and back.
                rtt = min(opened / 2, time.monotonic() - asked)
                there = read_look(lane, word)
                if there.same:
                    self.arrived = len(tree.files), tree.bytes
                    return tree, True
                return tree, self.move(lane, tree, there, rtt, wrong)

    @property
    def arguments(self) -> tuple[str, str, str]:
        """What the script of each lane is called with."""
        return self.place.folder, self.place.manifest, self.word

    def move(self, lane: Lane, tree: Tree, there: There, rtt: float, wrong: tuple[Entry, ...]) -> bool:
        """Send what is not there; return whether what is there then is the whole tree."""
        moving = [entry for entry in tree.files if there.lacks(entry)]
        wrong = wrong or hidden(self.remote, self.place, tree, there, moving)
        moving += wrong
        self.check_room(there, moving)
        arrived = self.send(lane, tree, moving, there, rtt, wrong)
        self.sent.update(entry.raw for entry in moving)
        self.sent_bytes += sum(entry.size for entry in moving)
        return arrived

    def check_room(self, there: There, moving: list[Entry]) -> None:
        """Raise `TransferError` when the machine's disk cannot take it."""
        need = there.room_needed(moving)
        if moving and there.free_bytes is not None and need + HEADROOM > there.free_bytes:
            raise TransferError(
                f"the {self.what} needs {human(need)} on the machine, and {human(there.free_bytes)} are free",
                hint="give `instance.volume_gb` more, or push less with `project.exclude`",
            )

    def send(
        self,
        lane: Lane,
        tree: Tree,
        moving: list[Entry],
        there: There,
        rtt: float,
        wrong: tuple[Entry, ...],
    ) -> bool:
        """Send files; return whether what is there then is the whole tree."""
        size = sum(entry.size for entry in moving)
        meter = Meter(self.reporter, f"push {self.what}", size, files=len(moving))
        others = [entry for entry in tree.entries if entry.kind != "file"]
        if size <= INLINE:
            asked = self.begin(lane, tree, moving, wrong)
            for batch in batches([*others, *moving], INLINE // 2):
                lane.send(batch, Squeeze())
                asked += 1
            asked += self.place_all(lane, tree, (), set())
        else:
            load = self.load(moving, others, there)
            meter.skip(load.there)
            with Lanes(self.remote, self.arguments, meter, rtt, load.tasks) as lanes:
                asked = self.begin(lane, tree, moving, wrong)
                if not there.fresh:  # what must go first goes before anything comes beside it
                    self.settle(lane, asked)
                    asked = 0
                lanes.carry(lane, asked)
                meter.add(0, len(load.big))
                if load.groups:
                    bulk.rsync(self.remote, load.groups, self.place.folder, meter)
                asked = self.place_all(lane, tree, load.big, load.torn)
        self.settle(lane, asked)
        still = _unchanged(moving)  # while the machine compares
        word, count, total = lane.answer().split(" ")
        self.arrived = int(count), int(total)
        meter.finish()
        return still and word == "same"

    @staticmethod
    def begin(lane: Lane, tree: Tree, moving: list[Entry], wrong: tuple[Entry, ...]) -> int:
        """Say what belongs there, and which parts are of use; return how many answers will come."""
        if wrong:
            lane.say("drop", b"".join(entry.raw + b"\0" for entry in wrong))
        ids = b"".join(b"p%s\0" % _id(entry).encode() for entry in moving if entry.size >= BIG)
        lane.say("begin", tree.names + gzip.compress(ids, mtime=0))
        return 1 + bool(wrong)

    def load(self, moving: list[Entry], others: list[Entry], there: There) -> Load:
        """Decide how much moves: by lanes what is new, by rsync what changed."""
        changed = self.by_rsync(moving, there)
        raw = {entry.raw for entry in changed}
        groups = bulk.group(changed)
        others = [*others, *(Entry(below.rstrip("/"), "dir") for _, below in groups if below)]
        new = [entry for entry in moving if entry.raw not in raw]
        big = tuple((entry, _id(entry)) for entry in new if entry.size >= BIG)
        torn: set[str] = set()
        cut = [
            piece
            for entry, id_ in big
            for piece in pieces(entry, id_, there.parts.get(id_, frozenset()), torn)
        ]
        lot = _lot(sum(entry.size for entry in moving))
        small = batches([*others, *(entry for entry in new if entry.size < BIG)], lot)
        skipped = sum(entry.size for entry, _ in big) - sum(piece.size for piece in cut)
        return Load(spread([*small, *cut]), big, groups, skipped, torn)

    def by_rsync(self, moving: list[Entry], there: There) -> list[Entry]:
        """Choose what only changed, when it is enough to look for what differs in it."""
        if not there.rsync or not bulk.rsync_here():
            return []
        changed = [entry for entry in moving if there.has(entry) and entry.source is not None]
        return changed if sum(entry.size for entry in changed) >= DELTA else []

    @staticmethod
    def place_all(lane: Lane, tree: Tree, big: tuple[tuple[Entry, str], ...], torn: set[str]) -> int:
        """Have big files renamed into place and everything compared; return how many answers come before that's.

        What is torn stays a part: it has the file's size, and would get its time, too.
        """
        whole = tuple((entry, id_) for entry, id_ in big if id_ not in torn)
        if whole:
            lane.say("place", records(whole))
        digests = ("torn", "torn") if torn else (tree.digest, tree.stat_digest)  # no digest is that
        lane.say("commit", b"", *digests)
        return bool(whole)

    @staticmethod
    def settle(lane: Lane, asked: int) -> None:
        """Hear so many answers. Raises what the lane raises."""
        for _ in range(asked):
            lane.answer()

    def report(self, tree: Tree, seconds: float) -> PushReport:
        """Return what was done. Raises `TransferError` when the machine counts otherwise."""
        if self.arrived != (len(tree.files), tree.bytes):
            raise self.unsettled(tree, ())
        return PushReport(
            what=self.what,
            files=len(tree.files),
            bytes=tree.bytes,
            sent_files=len(self.sent),
            sent_bytes=self.sent_bytes,
            seconds=seconds,
            left_out=tree.left_out,
            verified=self.verify,
        )

    def unsettled(self, tree: Tree, wrong: tuple[Entry, ...]) -> TransferError:
        """Return the error for a tree that will not arrive."""
        if wrong:
            names = ", ".join(f"`{entry.path}`" for entry in wrong[:3])
            return TransferError(
                f"{len(wrong)} files of the {self.what} have other contents on the machine: {names}",
                hint="the machine's disk, or this one's, gives back other bytes than it was given",
            )
        count, total = self.arrived
        return TransferError(
            f"files of the {self.what} keep changing while they are sent "
            f"({count} of {len(tree.files)} files, {human(total)} of {human(tree.bytes)} are there)",
            hint="stop what writes them, or leave them out with `project.exclude`",
        )

    def say(self, tree: Tree) -> None:
        """Say what stayed at home: by name what somebody may have meant to send, else in one line."""
        if counted := left_at_home(tree.left_out):
            self.reporter.emit(Note(f"left at home of the {self.what}: {counted}"))
        for mark, one, many, hint in NAMED:
            left = [line for line in tree.left_out if mark in line]
            if left:
                names = ", ".join(f"`{line.split(' (')[0]}`" for line in left[:5])
                more = f" and {len(left) - 5} more" if len(left) > 5 else ""
                self.reporter.emit(
                    Note(
                        f"{names}{more} {one if len(left) == 1 else many} and stayed at home",
                        "warning",
                        hint=hint,
                    )
                )


def _digested(scan: Callable[[], Tree]) -> Tree:
    tree = scan()
    _ = tree.digest, tree.stat_digest  # kept by it
    return tree


def _lot(total: int) -> int:
    """Return how big a lot is: many more lots than lanes, so that all end together."""
    return max(BATCH_BYTES // 12, min(BATCH_BYTES, total // 64))


def _id(entry: Entry) -> str:
    """Name the part file of a big file: another for each change of it."""
    text = f"{entry.path}\0{entry.size}\0{entry.mtime_ns}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:20]


def _unchanged(entries: list[Entry]) -> bool:
    """Whether files still are what they were when they were listed."""
    for entry in entries:
        if entry.source is None:
            continue
        try:
            info = os.stat(entry.source)  # noqa: PTH116
        except OSError:
            return False
        if (info.st_size, info.st_mtime_ns) != (entry.size, entry.mtime_ns):
            return False
    return True


__all__ = ["ConnectError", "Mirror"]
