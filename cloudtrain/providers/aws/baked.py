"""Images of the caller's own: made of a stopped machine, found again by their recipe."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import botocore.exceptions as boto

from cloudtrain.models.image import SNAPSHOT_GB_MONTH, BakedImage
from cloudtrain.models.tags import ID, OWNER, RECIPE, RUN
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import NO_ANSWER, code_of, translate, translating
from cloudtrain.providers.aws.tags import caller, to_aws

Row = Mapping[str, Any]


def create_image(clients: Clients, machine_id: str, name: str, tags: dict[str, str]) -> str:
    """Make an image of a stopped machine; a name that is taken is an answer that was lost."""
    kinds: Any = [{"ResourceType": kind, "Tags": to_aws(tags)} for kind in ("image", "snapshot")]
    try:
        made = clients.ec2.create_image(InstanceId=machine_id, Name=name, TagSpecifications=kinds)
    except boto.ClientError as error:
        known = _named(clients, name) if code_of(error) == "InvalidAMIName.Duplicate" else None
        if known is None:
            raise translate(error, f"making an image of {machine_id}") from error
        return known
    except NO_ANSWER as error:
        raise translate(error, f"making an image of {machine_id}") from error
    return str(made["ImageId"])


def images(clients: Clients, owner: str) -> tuple[BakedImage, ...]:
    """Return the owner's images, newest first, then snapshots that an image has left behind."""
    filters: Any = [{"Name": f"tag:{OWNER}", "Values": [owner]}, {"Name": "tag-key", "Values": [RECIPE]}]
    with translating("looking for your images"):
        rows = clients.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
        pages = clients.ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
        snapshots = [row for page in pages for row in page["Snapshots"]]
    found = sorted((_image(clients, row) for row in rows), key=_age, reverse=True)
    used = {name for one in found for name in one.snapshots}
    return (*found, *(_left(clients, row) for row in snapshots if row.get("SnapshotId") not in used))


def fitting(clients: Clients, recipe: str) -> str | None:
    """Return the caller's newest image for a recipe, None for none.

    Only the caller's own: what a colleague's image does when it boots is the colleague's choice.
    """
    filters: Any = [
        {"Name": f"tag:{RECIPE}", "Values": [recipe]},
        {"Name": f"tag:{OWNER}", "Values": [caller(clients)]},
        {"Name": "state", "Values": ["available"]},
    ]
    rows = clients.advice.describe_images(Owners=["self"], Filters=filters)["Images"]
    newest = max(rows, key=lambda row: str(row.get("CreationDate", "")), default=None)
    return None if newest is None else str(newest.get("ImageId"))


def tags_of(row: Row) -> dict[str, str]:
    """Return the tags of an image or a snapshot."""
    return {str(pair["Key"]): str(pair.get("Value", "")) for pair in row.get("Tags") or ()}


def _named(clients: Clients, name: str) -> str | None:
    filters: Any = [{"Name": "name", "Values": [name]}]
    with translating(f"looking for image {name}"):
        rows = clients.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    return str(rows[0].get("ImageId")) if rows else None


def _image(clients: Clients, row: Row) -> BakedImage:
    disks = [mapping["Ebs"] for mapping in row.get("BlockDeviceMappings") or () if "Ebs" in mapping]
    size = sum(int(disk.get("VolumeSize", 0)) for disk in disks)
    return _baked(
        clients,
        row,
        image=str(row["ImageId"]),
        state=str(row.get("State", "")),
        created=_time(str(row.get("CreationDate", ""))),
        size=size,
        snapshots=tuple(str(disk["SnapshotId"]) for disk in disks if disk.get("SnapshotId")),
    )


def _left(clients: Clients, row: Row) -> BakedImage:
    size = int(row.get("VolumeSize", 0))
    begun = row.get("StartTime")
    state = "pending" if row.get("State") == "pending" else "snapshot"
    return _baked(clients, row, image="", state=state, created=begun, size=size,
                  snapshots=(str(row["SnapshotId"]),))  # fmt: skip


def _baked(
    clients: Clients,
    row: Row,
    *,
    image: str,
    state: str,
    created: datetime | None,
    size: int,
    snapshots: tuple[str, ...],
) -> BakedImage:
    tags = tags_of(row)
    return BakedImage(
        id=image,
        name=str(row.get("Name", "")),
        recipe=tags.get(RECIPE, ""),
        run=f"{tags.get(RUN, '?')}-{tags.get(ID, '?')}",
        state=state,
        created=created,
        size_gb=size,
        snapshots=snapshots,
        region=clients.region,
        price_month=size * SNAPSHOT_GB_MONTH,
    )


def _age(one: BakedImage) -> str:
    return one.created.isoformat() if one.created else ""


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
