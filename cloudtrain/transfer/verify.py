"""Everything that was pushed, byte for byte: its hashes here and there.

Sizes and times are compared after every push; this is for whoever doubts a disk.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.manifest import Place, There
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.tree import Entry, Tree
from cloudtrain.transfer.wire import exchange

PATIENCE_S = 6 * 3600.0
"""The machine says nothing while it hashes a big file."""


def differing(
    remote: Remote, place: Place, tree: Tree, some: tuple[Entry, ...] | None = None
) -> tuple[Entry, ...]:
    """Return the files, of all or of `some`, whose bytes on the machine are not those of here.

    Both ends hash at once.
    """
    files = tree.files if some is None else some
    names = b"" if some is None else b"".join(entry.raw + b"\0" for entry in some)
    with ThreadPoolExecutor(1) as beside:
        answer = beside.submit(
            exchange, remote, script("push-lib", "push-verify"), place.folder, place.manifest,
            "" if some is None else "some", feed=lambda sink: sink.write(names), silence=PATIENCE_S,
        )  # fmt: skip
        here = {entry.raw: _hash(entry) for entry in files}
    there: dict[bytes, str] = {}
    for record in answer.result().split(b"\0")[:-1]:
        there[record[66:]] = record[:64].decode("ascii", "replace")
    return tuple(entry for entry in files if there.get(entry.raw) != here[entry.raw])


def hidden(remote: Remote, place: Place, tree: Tree, there: There, moving: list[Entry]) -> tuple[Entry, ...]:
    """Return the files that changed though their size and second did not: one was moved over another.

    Called when the tree's digest says that something changed; `moving` are the files that show it.
    """
    if not moving and there.listed == tree.listed:
        return differing(remote, place, tree)  # nothing else tells what it was
    ours, sent = {entry.raw for entry in tree.files}, {entry.raw for entry in moving}
    gone = {stat[:2] for raw, stat in there.files.items() if raw not in ours}
    some = tuple(one for one in tree.files if one.raw not in sent and (one.size, one.mtime) in gone)
    return differing(remote, place, tree, some) if some else ()


def _hash(entry: Entry) -> str:
    if entry.source is None:
        return hashlib.sha256(entry.content).hexdigest()
    try:
        with open(entry.source, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}"
