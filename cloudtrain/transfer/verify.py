"""Everything that was pushed, byte for byte: its hashes here and there.

Sizes and times are compared after every push; this is for whoever doubts a disk.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.manifest import Place
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.tree import Entry, Tree
from cloudtrain.transfer.wire import exchange

PATIENCE_S = 6 * 3600.0
"""The machine says nothing while it hashes a big file."""


def differing(remote: Remote, place: Place, tree: Tree) -> tuple[Entry, ...]:
    """Return the files whose bytes on the machine are not those of here. Both ends hash at once."""
    with ThreadPoolExecutor(1) as beside:
        answer = beside.submit(
            exchange, remote, script("push-lib", "push-verify"), place.folder, place.manifest,
            silence=PATIENCE_S,
        )  # fmt: skip
        here = {entry.raw: _hash(entry) for entry in tree.files}
    there: dict[bytes, str] = {}
    for record in answer.result().split(b"\0")[:-1]:
        there[record[66:]] = record[:64].decode("ascii", "replace")
    return tuple(entry for entry in tree.files if there.get(entry.raw) != here[entry.raw])


def _hash(entry: Entry) -> str:
    if entry.source is None:
        return hashlib.sha256(entry.content).hexdigest()
    try:
        with open(entry.source, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}"
