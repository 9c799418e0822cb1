"""A dataset that is an archive: fetched by the machine if need be, unpacked there, once.

It is unpacked beside its place and renamed when whole, links that lead out of it
are refused, and a data.yaml inside is given the path where it lies.
"""

from __future__ import annotations

from typing import Any, cast

from cloudtrain.errors import TransferError
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.dataset import DatasetSource
from cloudtrain.transfer.datayaml import SPLITS
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import exchange

PATIENCE_S = 6 * 3600.0
"""The machine says nothing while it downloads or unpacks; keep-alives tell a dead line."""


def unpack(remote: Remote, source: DatasetSource, layout: Layout, name: str) -> None:
    """Have the machine fetch (kind `remote`) and unpack an archive into `layout.data`.

    Does nothing when the same archive was unpacked there before. Raises
    `TransferError` with the machine's own words.
    """
    marker = f"{layout.root}/manifests/dataset.unpacked"
    archive = f"{layout.root}/archives/{name}"
    if source.kind == "remote":
        archive = f"{layout.root}/archives/{source.tree.digest[:12]}-{name}"
        exchange(
            remote, script("dataset-fetch"), archive, source.where, source.sha256 or "", silence=PATIENCE_S
        )
    found = exchange(
        remote, script("dataset-unpack"), archive, layout.data, marker, source.tree.digest, silence=PATIENCE_S
    )
    path, _, text = found.partition(b"\0")
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
