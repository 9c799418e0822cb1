"""`images`: what was baked, what it costs, and the removal of what a newer one has replaced."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.catalog import recipe
from cloudtrain.models.config import Config
from cloudtrain.models.image import BakedImage
from cloudtrain.models.plan import Found
from cloudtrain.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Listed:
    """One image. `fits` says that `image: auto` here would take it, `old` that a prune removes it."""

    image: BakedImage
    fits: bool
    old: bool


@dataclass(frozen=True, slots=True)
class Images:
    """Every image of the caller's own, newest first, and what all of them cost a month at most."""

    images: tuple[Listed, ...]
    price_month: float
    currency: str
    region: str
    pruned: tuple[str, ...] = ()


def images(provider: Provider, config: Config) -> Images:
    """Return the caller's images in the region. Raises `CloudError`."""
    identity = provider.identity()
    found = provider.images(identity.owner)
    wanted = recipe.digest(config)
    making = {(one.run, one.recipe) for one in found if one.state == "pending"}
    seen: set[str] = set()
    listed: list[Listed] = []
    for one in found:
        newest = one.state == "available" and one.recipe not in seen
        if newest:
            seen.add(one.recipe)
        fits = newest and one.recipe == wanted and config.instance.image == recipe.AUTO
        # An image that is being made does not name its snapshots yet.
        listed.append(Listed(one, fits, old=not newest and (one.run, one.recipe) not in making))
    total = sum(one.price_month for one in found)
    currency = found[0].currency if found else "USD"
    return Images(tuple(listed), total, currency, identity.region)


def prune(provider: Provider, found: Images) -> tuple[str, ...]:
    """Remove every image that a newer one of its recipe has replaced, with its snapshots.

    One that failed, and snapshots without an image, go too. Returns the ids that went.
    Raises `CloudError` naming what cannot be removed; asking again goes on from there.
    """
    old = [one.image for one in found.images if one.old]
    owner = provider.identity().owner
    things = tuple(thing for one in old for thing in _things(one, owner))
    if things:
        provider.remove(things)
    return tuple(thing.id for thing in things)


def _things(one: BakedImage, owner: str) -> tuple[Found, ...]:
    image = (Found("image", one.id, one.run, one.state, True, one.region, owner),) if one.id else ()
    rest = (Found("snapshot", name, one.run, "", True, one.region, owner) for name in one.snapshots)
    return (*image, *rest)
