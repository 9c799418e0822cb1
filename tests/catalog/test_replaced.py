"""Which images a prune removes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from cloudtrain.models.config import Config
from cloudtrain.models.image import BakedImage
from cloudtrain.providers.base import Identity, Provider
from cloudtrain.workflows.images import images

NEW = BakedImage(
    id="ami-new",
    name="n",
    recipe="r",
    run="a-1",
    state="available",
    created=datetime.now(UTC),
    size_gb=20,
    snapshots=("snap-new",),
    region="eu-central-1",
    price_month=1.0,
)


class Listing:
    """As much of a provider as a list of images asks for."""

    def __init__(self, *found: BakedImage) -> None:
        self.found = found

    def identity(self) -> Identity:
        return Identity(owner="me", region="eu-central-1", partition="aws")

    def images(self, owner: str) -> tuple[BakedImage, ...]:
        assert owner == "me"
        return self.found


def old(*found: BakedImage) -> list[str]:
    listed = images(cast("Provider", Listing(*found)), Config()).images
    return [one.image.id or one.image.snapshots[0] for one in listed if one.old]


def test_what_a_newer_one_replaced_and_what_is_left_of_one() -> None:
    before = replace(NEW, id="ami-old", run="a-2", snapshots=("snap-old",))
    left = replace(NEW, id="", run="a-3", state="snapshot", snapshots=("snap-left",))
    failed = replace(NEW, id="ami-failed", run="a-4", state="failed", recipe="other")
    assert old(NEW, before, left, failed) == ["ami-old", "snap-left", "ami-failed"]


def test_one_that_is_being_made_keeps_its_snapshots() -> None:
    """EC2 names an image's snapshots only once they are made."""
    making = replace(NEW, id="ami-made", run="a-5", state="pending", snapshots=())
    its = replace(NEW, id="", run="a-5", state="snapshot", snapshots=("snap-its",))
    early = replace(its, run="a-6", state="pending")
    assert old(making, NEW, its, early) == []
