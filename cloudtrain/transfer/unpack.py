"""A dataset that is an archive: fetched by the machine if need be, unpacked there, once.

It is unpacked beside its place and renamed when whole, links that lead out of it
are refused, and a data.yaml inside is given the path where it lies. To verify what lies
there, it comes once more beside it, and what differs is replaced.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from typing import Any, cast

from cloudtrain.errors import TransferError
from cloudtrain.events import Note, Reporter
from cloudtrain.models.lent import Lent
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.dataset import DatasetSource
from cloudtrain.transfer.datayaml import SPLITS
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.told import Told
from cloudtrain.transfer.wire import exchange
from cloudtrain.transfer.yamlfile import NoYaml, parsed

UNPROVEN = "what came from the address was not compared with what lies there: only what was unpacked was"
MARK = "# cloudtrain wrote this from "
"""How our own data.yaml begins; the rest of the line is the hash of the one that it was written from."""


def unpack(
    remote: Remote,
    source: DatasetSource,
    layout: Layout,
    name: str,
    reporter: Reporter,
    lent: tuple[Lent, ...] = (),
    *,
    verify: bool = False,
) -> None:
    """Have the machine fetch (kind `remote`) and unpack an archive into `layout.data`.

    `lent` is the way to it when it lies in S3. Does nothing when the same archive was unpacked
    there before, unless it is to `verify` that it, and what came out of it, still are what they were.
    Raises `TransferError` with the machine's own words.
    """
    mode = _mode(verify)
    archive = f"{layout.root}/archives/{name}"
    digest = source.tree.digest
    doubt = ""
    if source.kind == "remote":
        address = lent[0].address if lent else source.where
        digest = hashlib.sha256(f"{digest}{lent[0].version}".encode()).hexdigest() if lent else digest
        archive = f"{layout.root}/archives/{digest[:12]}-{name}"
        protocol = "http,https" if lent else "https"
        doubt = "" if source.sha256 else "doubtful"
        text = script("told-lib", "dataset-fetch")
        args = (archive, source.sha256 or "", protocol, mode)
        _tell(remote, text, args, Told(reporter, "downloads"), f"{address}\n".encode())
        if verify and source.sha256 is None:
            reporter.emit(Note(UNPROVEN, hint="give `dataset.sha256`, and it is"))
    args = (archive, layout.data, _marker(layout), digest, doubt, mode)
    _have(remote, "dataset-unpack", args, Told(reporter, "unpacks"))
    point_here(remote, layout)


def fetch_objects(
    remote: Remote, layout: Layout, reporter: Reporter, lent: tuple[Lent, ...], *, verify: bool = False
) -> None:
    """Have the machine fetch every object into `layout.data`. Raises `TransferError`."""
    text = "".join(f"{one.path}\0{one.size}\0{one.version}\0" for one in lent)
    digest = hashlib.sha256(text.encode()).hexdigest()
    below = [one for one in lent if _below(one.path)]
    data = "".join(f"{one.path}\0{one.size}\0{one.address}\0" for one in below).encode()
    size = sum(one.size for one in below)
    args = (layout.data, _marker(layout), digest, str(len(below)), str(size), _mode(verify))
    _have(remote, "dataset-objects", args, Told(reporter, "downloads"), data)
    point_here(remote, layout)


def run_command(remote: Remote, source: DatasetSource, layout: Layout, reporter: Reporter) -> None:
    """Have the user's command fetch the data there, once. Raises `TransferError` with its words."""
    args = (layout.data, _marker(layout), source.tree.digest)
    _have(remote, "dataset-command", args, Told(reporter), f"{source.where}\n".encode())
    point_here(remote, layout)


def _have(remote: Remote, name: str, args: tuple[str, ...], told: Told, data: bytes = b"") -> None:
    """Have `layout.data` made into the source's, which goes wholly or not at all."""
    _tell(remote, script("told-lib", "dataset-lib", name), args, told, data)


def _tell(remote: Remote, text: str, args: tuple[str, ...], told: Told, data: bytes) -> None:
    exchange(remote, text, *args, feed=lambda sink: sink.write(data), take=told.take)
    if told.differ:
        count = f"{told.differ} file{'s' if told.differ > 1 else ''}"
        told.reporter.emit(Note(f"{count} of the dataset differed on the machine, and came again", "warning"))


def _mode(verify: bool) -> str:
    return "verify" if verify else ""


def _marker(layout: Layout) -> str:
    """Return the record of what `layout.data` holds: there is none after a push file by file."""
    return f"{layout.root}/manifests/dataset.unpacked"


def _below(path: str) -> bool:
    """Whether an object's name stays below the folder: a bucket may hold any name."""
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")


def point_here(remote: Remote, layout: Layout) -> None:
    """Write `layout.data/data.yaml` from the one that came, with the path where it lies.

    Does nothing when it was written from that one already: it would be taken for what came.
    """
    path, _, text = exchange(remote, script("dataset-yaml"), layout.data, MARK).partition(b"\0")
    if path:
        _point_here(remote, layout, path.decode("utf-8", "surrogateescape"), text)


def _point_here(remote: Remote, layout: Layout, path: str, text: bytes) -> None:
    import yaml

    try:
        loaded = parsed(text)
    except NoYaml as error:
        raise TransferError(f"`{path}` in the archive is no YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise TransferError(f"`{path}` in the archive is no data.yaml")
    document = cast("dict[str, Any]", loaded)
    came = "what was here" if path == "data.yaml" else hashlib.sha256(text).hexdigest()
    new = yaml.safe_dump(
        _pointed(remote, document, layout.data, f"{layout.data}/{path}".rsplit("/", 1)[0]),
        sort_keys=False,
        allow_unicode=True,
        width=4096,
    )
    remote.put(f"{MARK}{came}\n{new}".encode(), f"{layout.data}/data.yaml", mode=0o644)


def _pointed(remote: Remote, document: dict[str, Any], data: str, folder: str) -> dict[str, Any]:
    """Return a data.yaml that lay in `folder` as it must read to be found in `data`."""
    roots = _roots(document.get("path"), data, folder)
    splits = {split: _texts(document[split]) for split in SPLITS if document.get(split)}
    asked = {
        _at(root, way) for root in roots for ways in splits.values() for one in ways for way in _ways(one)
    }
    there = _there(remote, asked | set(roots))

    def found(root: str, value: str) -> str:
        return next((way for way in _ways(value) if _at(root, way) in there), _ways(value)[-1])

    needed = [one for split in ("train", "val") for one in splits.get(split, [])]
    fits = (root for root in roots if all(_at(root, found(root, one)) in there for one in needed))
    root = next(fits, next((root for root in roots if root in there), folder))
    new = {key: value for key, value in document.items() if key != "download"}
    for split, values in splits.items():
        texts = [found(root, one) for one in values]
        new[split] = texts if isinstance(document[split], list) else texts[0]
    return {**new, "path": root}


def _roots(given: object, data: str, folder: str) -> list[str]:
    """Return where the splits may begin: at the yaml's own `path` if it stays in the data, or beside it."""
    if not isinstance(given, str) or not given or given.startswith(("/", "~")):
        return [folder]
    own = posixpath.normpath(f"{folder}/{given}")
    return [own, folder] if own == data or own.startswith(f"{data}/") else [folder]


def _ways(value: str) -> list[str]:
    """Return how a split may be meant: a `../` too many is forgiven where it leads nowhere."""
    return [value, value.removeprefix("../")] if value.startswith("../") else [value]


def _texts(value: object) -> list[str]:
    return [str(one) for one in cast("list[object]", value)] if isinstance(value, list) else [str(value)]


def _at(root: str, value: str) -> str:
    return posixpath.normpath(posixpath.join(root, value))


def _there(remote: Remote, paths: set[str]) -> set[str]:
    """Return which of these paths are on the machine."""
    data = b"".join(os.fsencode(path) + b"\0" for path in sorted(paths))
    there = exchange(remote, script("dataset-there"), feed=lambda sink: sink.write(data))
    return {os.fsdecode(path) for path in there.split(b"\0")[:-1]}
