"""From an image's name to its id, its root device and the smallest volume it starts from."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import botocore.exceptions as boto

from cloudtrain.catalog import recipe
from cloudtrain.errors import CloudtrainError, UsageError
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Image
from cloudtrain.models.tags import RECIPE, USER
from cloudtrain.paths import shipped
from cloudtrain.providers.aws import baked
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import FAILURES, NO_ANSWER, code_of, translate, translating


def choose(clients: Clients, config: Config) -> Image:
    """Return the image of a configuration.

    `auto` is the caller's newest of this recipe, then the Deep Learning image where that
    is allowed, then Ubuntu. Raises what `resolve` raises.
    """
    if config.instance.image != recipe.AUTO:
        return resolve(clients, config.instance.image)
    try:
        mine = baked.fitting(clients, recipe.digest(config))
        if mine is not None:
            return resolve(clients, mine)
    except (*FAILURES, CloudtrainError):
        pass  # nobody would say, or it was deregistered meanwhile: there is another way to the same end
    if config.instance.dlami:
        with suppress(UsageError):
            return resolve(clients, recipe.DLAMI)
    return resolve(clients, recipe.recipe().base)


def resolve(clients: Clients, wanted: str) -> Image:
    """Return the image for a name of ami/images.yaml or an id.

    Raises `UsageError` for one that does not exist here, and `CloudError` when
    nobody would say.
    """
    if wanted.startswith("ami-"):
        return _described(clients, wanted, user="ubuntu")
    catalog = _catalog()
    name = catalog["aliases"].get(wanted, wanted)
    entry: dict[str, str] | None = catalog["images"].get(name)
    if entry is None:
        known = ", ".join(["auto", *catalog["images"]])
        raise UsageError(
            f"there is no image `{wanted}`", hint=f"`instance.image` is one of {known}, or ami-…"
        )
    image_id = _by_parameter(clients, entry["parameter"])
    if image_id is None:
        owner = catalog["owners"][entry["owner"]][clients.partition]
        return _newest(clients, owner, entry["pattern"], entry["user"])
    return _described(clients, image_id, user=entry["user"])


def _catalog() -> Any:  # noqa: ANN401 - YAML of our own, whose shape the lines above rely on
    import yaml

    return yaml.safe_load((shipped("ami") / "images.yaml").read_text())


def _by_parameter(clients: Clients, name: str) -> str | None:
    """Ask SSM; denied, missing or unreachable all mean: look it up the other way."""
    try:
        return clients.ssm.get_parameter(Name=name)["Parameter"].get("Value")
    except FAILURES:
        return None


def _described(clients: Clients, image_id: str, *, user: str) -> Image:
    try:
        found = clients.ec2.describe_images(ImageIds=[image_id])["Images"]
    except boto.ClientError as error:
        if code_of(error).startswith("InvalidAMIID"):
            raise _no_image(image_id, clients.region) from error
        raise translate(error, f"looking at image {image_id}") from error
    except NO_ANSWER as error:
        raise translate(error, f"looking at image {image_id}") from error
    if not found:
        raise _no_image(image_id, clients.region)
    return _image(found[0], user)


def _newest(clients: Clients, owner: str, pattern: str, user: str) -> Image:
    filters: Any = [
        {"Name": "name", "Values": [pattern]},
        {"Name": "state", "Values": ["available"]},
        {"Name": "architecture", "Values": ["x86_64"]},
    ]
    with translating("looking for the newest image"):
        found = clients.ec2.describe_images(Owners=[owner], Filters=filters)["Images"]
    if not found:
        raise UsageError(
            f"no image named `{pattern}` is to be had in {clients.region}",
            hint="give one by id: `instance.image: ami-…`",
        )
    return _image(max(found, key=lambda row: str(row.get("CreationDate", ""))), user)


def _image(row: Any, user: str) -> Image:  # noqa: ANN401 - one image of the API
    """Read root device and smallest size from the image: neither is to be assumed."""
    root = str(row.get("RootDeviceName", "/dev/sda1"))
    sizes = [
        int(mapping.get("Ebs", {}).get("VolumeSize", 8))
        for mapping in row.get("BlockDeviceMappings", [])
        if mapping.get("DeviceName") == root
    ]
    tags = baked.tags_of(row)
    return Image(
        id=str(row["ImageId"]),
        name=str(row.get("Name", "")),
        user=tags.get(USER, user),
        root_device=root,
        floor_gb=max(sizes, default=8),
        baked=RECIPE in tags,
    )


def _no_image(image_id: str, region: str) -> UsageError:
    return UsageError(
        f"image `{image_id}` does not exist in {region}",
        hint="an image lives in one region: take its id there, or use `instance.image: auto`",
    )
