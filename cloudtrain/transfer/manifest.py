"""What the machine remembers of a push, and the questions asked of it.

Beside the pushed folders, in `<root>/manifests`, lie for each push

    <what>.names    every path that pushes put there: f, l or d, the path, NUL (r and p: see tree.py, mirror.py)
    <what>.digest   `Tree.digest` of the last push that was compared
    <what>.parts    what broken pushes left of big files, and a list of what is good in each
    dataset.unpacked  which archive, S3 folder or command data/ is of; no push file by file has it

One round trip decides that nothing changed: the digest is the same here, and a
`stat` of every file in `.names` hashes to what it must, so a file that somebody
changed or removed on the machine shows as well. `.names` is also the only
reason for a deletion: what a push did not put there is never touched.

The scripts (templates/push-*.sh) need bash, coreutils, findutils, sed, awk, gzip and tar.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, field

from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.lane import Lane
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.tree import Entry, Tree
from cloudtrain.transfer.wire import exchange


@dataclass(frozen=True, slots=True)
class Place:
    """Where one push goes: the folder, and its record without suffix."""

    folder: str
    manifest: str


@dataclass(frozen=True, slots=True)
class There:
    """What one look at the machine showed. `files` maps raw path to (size, seconds, mode)."""

    same: bool
    rsync: bool = False
    free_bytes: int | None = None
    fresh: bool = False
    """Whether nothing was ever pushed there."""
    files: dict[bytes, tuple[int, int, int]] = field(default_factory=dict[bytes, tuple[int, int, int]])
    parts: dict[str, frozenset[tuple[int, int]]] = field(
        default_factory=dict[str, frozenset[tuple[int, int]]]
    )
    """What broken pushes left of big files: offset and length, by part id."""
    recent: dict[bytes, set[int]] = field(default_factory=dict[bytes, set[int]])
    """The nanoseconds, which `files` does not tell, of files that were young when they were sent: of the
    last push that ended, and of those that broke since."""
    listed: str = ""
    """SHA-256 of the names that pushes put there: `Tree.listed` where none came or went since."""

    def lacks(self, entry: Entry) -> bool:
        """Whether a file is missing there, or another one than here."""
        found = self.files.get(entry.raw)
        if found is None or found[:2] != (entry.size, entry.mtime):
            return True
        if self.recent.get(entry.raw, set()) - {entry.nanoseconds}:
            return True
        return bool(found[2] & 0o100) != entry.executable

    def has(self, entry: Entry) -> bool:
        """Whether there is a file of that name, whatever is in it."""
        return entry.raw in self.files

    def room_needed(self, entries: list[Entry]) -> int:
        """Bytes that sending these files takes more than there is taken now.

        Parts count whoever's they are: those of other files go before anything comes.
        """
        taken = sum(self.files.get(entry.raw, (0, 0, 0))[0] for entry in entries)
        parts = sum(length for part in self.parts.values() for _, length in part)
        return sum(entry.size for entry in entries) - taken - parts


def read_look(lane: Lane, word: str) -> There:
    """Read the answer to `look`, which began with `word`: whether the tree is there; if not, what is."""
    if word == "same":
        lane.answer()
        return There(same=True)
    rsync, free, fresh, packed, _ = (lane.answer() for _ in range(5))
    files: dict[bytes, tuple[int, int, int]] = {}
    parts: dict[str, set[tuple[int, int]]] = {}
    recent: dict[bytes, set[int]] = {}
    for record in gzip.decompress(base64.b64decode(packed)).split(b"\0")[:-1]:
        first, second, third, rest = record.split(b" ", 3)
        if first == b"recent":
            recent.setdefault(rest, set()).add(int(second))
        elif first == b"part":
            parts.setdefault(second.decode(), set()).add((int(third), int(rest)))
        else:
            files[rest] = (int(first), int(second), int(third, 8))
    return There(
        same=False,
        rsync=bool(rsync),
        free_bytes=int(free) * 1024 if free.isdigit() else None,
        fresh=fresh.startswith("fresh ") and not files,
        files=files,
        parts={id_: frozenset(have) for id_, have in parts.items()},
        recent=recent,
        listed=fresh.split(" ")[1],
    )


def same_each(remote: Remote, wanted: list[tuple[Place, Tree]]) -> tuple[bool, ...]:
    """Ask in one round trip which of several trees are there unchanged."""
    args = [
        value
        for place, tree in wanted
        for value in (place.folder, place.manifest, tree.digest, tree.stat_digest)
    ]
    return tuple(word == b"same" for word in exchange(remote, script("push-lib", "push-same"), *args).split())
