"""A dataset that is an archive: fetched by the machine if need be, unpacked there, once.

It is unpacked beside its place and renamed when whole, links that lead out of it
are refused, and a data.yaml inside is given the path where it lies.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

from cloudtrain.errors import TransferError
from cloudtrain.models.lent import Lent
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.dataset import DatasetSource
from cloudtrain.transfer.datayaml import SPLITS
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import exchange

PATIENCE_S = 6 * 3600.0
"""The machine says nothing while it downloads or unpacks; keep-alives tell a dead line."""


def unpack(
    remote: Remote, source: DatasetSource, layout: Layout, name: str, lent: tuple[Lent, ...] = ()
) -> None:
    """Have the machine fetch (kind `remote`) and unpack an archive into `layout.data`.

    `lent` is the way to it when it lies in S3. Does nothing when the same archive was unpacked
    there before. Raises `TransferError` with the machine's own words.
    """
    archive = f"{layout.root}/archives/{name}"
    digest = source.tree.digest
    if source.kind == "remote":
        address = lent[0].address if lent else source.where
        digest = hashlib.sha256(f"{digest}{lent[0].version}".encode()).hexdigest() if lent else digest
        archive = f"{layout.root}/archives/{digest[:12]}-{name}"
        protocol = "http,https" if lent else "https"
        _ask(remote, "dataset-fetch", archive, source.sha256 or "", protocol, data=f"{address}\n".encode())
    _ask(remote, "dataset-unpack", archive, layout.data, _marker(layout), digest)
    point_here(remote, layout)


def fetch_objects(remote: Remote, layout: Layout, lent: tuple[Lent, ...]) -> None:
    """Have the machine fetch every object into `layout.data`. Raises `TransferError`."""
    text = "".join(f"{one.path}\0{one.size}\0{one.version}\0" for one in lent)
    digest = hashlib.sha256(text.encode()).hexdigest()
    data = "".join(f"{one.path}\0{one.size}\0{one.address}\0" for one in lent if _below(one.path))
    _ask(remote, "dataset-objects", layout.data, _marker(layout), digest, data=data.encode())
    point_here(remote, layout)


def run_command(remote: Remote, source: DatasetSource, layout: Layout) -> None:
    """Have the user's command fetch the data there, once. Raises `TransferError` with its words."""
    _ask(remote, "dataset-command", layout.data, _marker(layout), source.tree.digest, source.where)
    point_here(remote, layout)


def _ask(remote: Remote, name: str, *args: str, data: bytes = b"") -> bytes:
    return exchange(remote, script(name), *args, feed=lambda sink: sink.write(data), silence=PATIENCE_S)


def _marker(layout: Layout) -> str:
    return f"{layout.root}/manifests/dataset.unpacked"


def _below(path: str) -> bool:
    """Whether an object's name stays below the folder: a bucket may hold any name."""
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")


def point_here(remote: Remote, layout: Layout) -> None:
    """Write `layout.data/data.yaml` from the one that came, with the path where it lies."""
    path, _, text = exchange(remote, script("dataset-yaml"), layout.data).partition(b"\0")
    if path:
        _point_here(remote, layout, path.decode("utf-8", "replace"), text)


def _point_here(remote: Remote, layout: Layout, path: str, text: bytes) -> None:
    """Write `layout.data/data.yaml` from the one inside the archive."""
    import yaml

    try:
        loaded: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TransferError(f"`{path}` in the archive is no YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise TransferError(f"`{path}` in the archive is no data.yaml")
    document = cast("dict[str, Any]", loaded)
    folder = f"{layout.data}/{path}".rsplit("/", 1)[0]
    for split in SPLITS:
        value = document.get(split)
        if isinstance(value, str):
            document[split] = value.removeprefix("../") if value.startswith("../") else value
    document = {**document, "path": folder}
    document.pop("download", None)
    new = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=4096).encode()
    if new != text:
        remote.put(new, f"{layout.data}/data.yaml", mode=0o644)
