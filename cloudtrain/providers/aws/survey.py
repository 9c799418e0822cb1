"""Everything a plan wants to know, asked side by side and with a short deadline.

Only what cannot be guessed stops a plan (an image, a type or a network that does not
exist); prices, zones and the caller's address are advice: denied or late, they are
named in `Survey.missing` and the plan goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeVar

import botocore.exceptions as boto

from cloudtrain.errors import CloudError, UsageError
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Market
from cloudtrain.models.plan import Image, Offer, Rates, Survey, ZonePrice
from cloudtrain.providers.aws import hardware, images, network, prices
from cloudtrain.providers.aws.access import caller_address, checked_address
from cloudtrain.providers.aws.advice import Advice, ask
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import FAILURES, NO_ANSWER, code_of, translate

T = TypeVar("T")
MARKETS: dict[str, tuple[Market, ...]] = {
    "on-demand": ("on-demand",),
    "spot": ("spot",),
    "spot-then-on-demand": ("spot", "on-demand"),
}
NEEDED_S = 60.0
"""How long the questions may take whose answer a plan cannot do without."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Every question of a survey, on its way."""

    details: Future[dict[str, hardware.Row]]
    zones: Future[dict[str, tuple[str, ...]]]
    prices: dict[str, Future[prices.Price]]
    spot: Future[dict[str, tuple[ZonePrice, ...]]]
    rates: Future[Rates]
    image: Future[Image]
    address: Future[str | None]
    network: Future[network.Network]


def survey(clients: Clients, config: Config) -> Survey:
    """Ask for offers, image, network and address at once."""
    region = clients.region
    asked = _ask(clients, config)
    advice = Advice()
    place = _network(advice, asked.network)
    offers = _offers(clients, config, advice, asked, place.zone)
    needed = Advice(NEEDED_S)
    ingress = advice.take(asked.address, "your public address", None)
    return Survey(
        region=region,
        offers=offers,
        image=_needed(needed, asked.image),
        ingress=ingress,
        missing=(*advice.missing, *place.notes),
        inside=place.inside,
        rates=advice.take(asked.rates, "prices of volume and address", Rates()),
    )


def _ask(clients: Clients, config: Config) -> _Asked:
    types = config.instance.type
    wants_spot = "spot" in MARKETS[config.instance.market]
    return _Asked(
        details=ask(lambda: hardware.described(clients, types)),
        zones=ask(lambda: hardware.zones(clients, types)),
        prices=prices.on_demand(clients, types),
        spot=ask(lambda: prices.spot(clients, types if wants_spot else ())),
        rates=ask(lambda: prices.rates(clients)),
        image=ask(lambda: images.choose(clients, config)),
        address=ask(lambda: ingress(clients, config)),
        network=ask(lambda: network.check(clients, config, clients.settings.ssh_port)),
    )


def _needed(patience: Advice, future: Future[T]) -> T:
    try:
        return patience.wait(future)
    except FAILURES as error:
        raise translate(error, "looking up the image") from error
    except TimeoutError as error:
        raise CloudError(
            f"AWS did not name the image within {NEEDED_S:.0f} s", hint="check the network, then try again"
        ) from error


def _network(advice: Advice, asked: Future[network.Network]) -> network.Network:
    """Return the checked network. Raises `UsageError` for one that cannot work."""
    try:
        return advice.wait(asked)
    except UsageError:
        raise
    except (*FAILURES, TimeoutError, KeyError) as error:
        advice.say("the network", error)
        return network.Network()


def _offers(
    clients: Clients, config: Config, advice: Advice, asked: _Asked, zone: str | None
) -> tuple[Offer, ...]:
    rows = _details(config.instance.type, advice, asked.details)
    places = advice.take(asked.zones, "zones", {})
    spot = advice.take(asked.spot, "spot prices", {})
    found: list[Offer] = []
    for name in config.instance.type:
        price = prices.settled(clients, advice, name, asked.prices[name])
        base = hardware.offer(name, rows.get(name), _within(places.get(name, ()), zone, name))
        for market in MARKETS[config.instance.market]:
            if market == "spot":
                found.append(spot_offer(clients, base, spot.get(name, ())))
            else:
                found.append(priced(base, price))
    return tuple(found)


def priced(base: Offer, price: prices.Price) -> Offer:
    """Return an on-demand offer at a price."""
    return replace(
        base,
        market="on-demand",
        price_hour=price.amount,
        currency=price.currency,
        price_source=price.source,
    )


def spot_offer(clients: Clients, base: Offer, history: tuple[ZonePrice, ...]) -> Offer:
    """Return a spot offer: its price is the cheapest zone's, and its zones come in that order."""
    here = tuple(one for one in history if not base.zones or one.zone in base.zones)
    cheap = [one.zone for one in here]
    return replace(
        base,
        market="spot",
        zones=(*cheap, *(zone for zone in base.zones if zone not in cheap)),
        price_hour=here[0].price_hour if here else None,
        currency=prices.CURRENCY[clients.partition],
        price_source="api" if here else "",
        zone_prices=here,
    )


def _within(zones: tuple[str, ...], zone: str | None, name: str) -> tuple[str, ...]:
    """Return the zones to try; with a subnet of the user's own that is its zone."""
    if zone is None:
        return zones
    if zones and zone not in zones:
        raise UsageError(
            f"{name} is not offered in {zone}, where `instance.subnet` lies",
            hint=f"choose a subnet in {', '.join(zones)}, or another type",
        )
    return (zone,)


def _details(
    types: Sequence[str], advice: Advice, asked: Future[dict[str, hardware.Row]]
) -> dict[str, hardware.Row]:
    try:
        return advice.wait(asked)
    except boto.ClientError as error:
        if code_of(error) in ("InvalidInstanceType", "InvalidParameterValue"):
            raise UsageError(
                f"there is no such instance type among {', '.join(types)}: {error}",
                hint="`instance.type` is written like g4dn.xlarge; `cloudtrain offers` lists them",
            ) from error
        return advice.take(asked, "instance types", {})
    except (*NO_ANSWER, TimeoutError, KeyError):
        return advice.take(asked, "instance types", {})


def _is_inside(config: Config) -> bool:
    return config.instance.subnet is not None and config.instance.address != "public"


def ingress(clients: Clients, config: Config) -> str:
    """Return the caller's address, given or asked. Raises `CloudError`."""
    given = clients.settings.ingress
    if config.access.ingress:
        return checked_address(
            config.access.ingress, loopback=clients.settings.name == "sandbox", inside=_is_inside(config)
        )
    return given or caller_address(config.access.address_service)
