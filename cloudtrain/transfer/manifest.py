"""What the machine remembers of a push, and the questions asked of it.

Beside the pushed folders, in `<root>/manifests`, lie for each push

    <what>.names    every path that pushes put there: f, l or d, the path, NUL
    <what>.digest   `Tree.digest` of the last push that was verified

One round trip decides that nothing changed: the digest is the same here, and a
`stat` of every file in `.names` hashes to what it must, so a file that somebody
changed or removed on the machine shows as well. `.names` is also the only
reason for a deletion: what a push did not put there is never touched.

The scripts (templates/push-*.sh) need bash, coreutils, findutils, sed, gzip and tar.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass

from cloudtrain.errors import TransferError
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.tree import Entry, Tree
from cloudtrain.transfer.wire import Sink, exchange


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
    files: dict[bytes, tuple[int, int, int]] | None = None

    def lacks(self, entry: Entry) -> bool:
        """Whether a file is missing there, or another one than here."""
        found = (self.files or {}).get(entry.raw)
        if found is None or found[:2] != (entry.size, entry.mtime):
            return True
        return bool(found[2] & 0o100) != entry.executable

    def room_needed(self, entries: list[Entry]) -> int:
        """Bytes that sending these files takes more than there is taken now."""
        have = self.files or {}
        return sum(entry.size - have.get(entry.raw, (0, 0, 0))[0] for entry in entries)


def look(remote: Remote, place: Place, tree: Tree) -> There:
    """Ask in one round trip whether `tree` is there already; if not, what is."""
    text = script("push-lib", "push-look")
    answer = exchange(remote, text, place.folder, place.manifest, tree.digest, tree.stat_digest)
    word, _, rest = answer.partition(b"\n")
    if word == b"same":
        return There(True)
    rsync, _, rest = rest.partition(b"\n")
    free, _, packed = rest.partition(b"\n")
    files: dict[bytes, tuple[int, int, int]] = {}
    for record in (gzip.decompress(packed) if packed else b"").split(b"\0")[:-1]:
        size, mtime, mode, path = record.split(b" ", 3)
        files[path] = (int(size), int(mtime), int(mode, 8))
    return There(False, bool(rsync), int(free) * 1024 if free.isdigit() else None, files)


def begin(remote: Remote, place: Place, tree: Tree, feed: Callable[[Sink], object]) -> None:
    """Delete what earlier pushes left and `tree` has not, and unpack the tar stream of `feed`."""
    _begin(remote, script("push-lib", "push-begin"), place, tree, feed)


def begin_and_commit(remote: Remote, place: Place, tree: Tree, feed: Callable[[Sink], object]) -> bool:
    """Do `begin` and `commit` in one round trip."""
    text = script("push-lib", "push-begin") + 'set -- "$1" "$2" "$4" "$5"\n' + script("push-commit")
    return _confirmed(_begin(remote, text, place, tree, feed))


def commit(remote: Remote, place: Place, tree: Tree) -> bool:
    """Compare everything that is there with `tree` and, when it is the same, record it."""
    text = script("push-lib", "push-commit")
    return _confirmed(exchange(remote, text, place.folder, place.manifest, tree.digest, tree.stat_digest))


def same_each(remote: Remote, wanted: list[tuple[Place, Tree]]) -> tuple[bool, ...]:
    """Ask in one round trip which of several trees are there unchanged."""
    args = [
        value
        for place, tree in wanted
        for value in (place.folder, place.manifest, tree.digest, tree.stat_digest)
    ]
    return tuple(word == b"same" for word in exchange(remote, script("push-lib", "push-same"), *args).split())


def _begin(remote: Remote, text: str, place: Place, tree: Tree, feed: Callable[[Sink], object]) -> bytes:
    def write(sink: Sink) -> None:
        sink.write(tree.names)
        feed(sink)

    length = str(len(tree.names))
    args = (place.folder, place.manifest, length, tree.digest, tree.stat_digest)
    return exchange(remote, text, *args, feed=write)


def _confirmed(answer: bytes) -> bool:
    """Read the last word of a script that ends in push-commit.sh."""
    word = answer.strip().rsplit(b"\n", 1)[-1]
    if word not in (b"same", b"mismatch"):
        raise TransferError("the machine gave no answer to what arrived", hint="run the same command again")
    return word == b"same"
