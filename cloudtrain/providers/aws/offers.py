"""The whole shop window of a region: GPU types with prices, side by side to one deadline."""

from __future__ import annotations

from dataclasses import replace

from cloudtrain.catalog.gpu import packaged
from cloudtrain.models.account import OfferList, OfferQuery
from cloudtrain.models.plan import Offer, Rates
from cloudtrain.providers.aws import hardware, prices
from cloudtrain.providers.aws.advice import Advice, ask
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.survey import priced, spot_offer


def listed(clients: Clients, query: OfferQuery) -> OfferList:
    """Return what fits a query, with prices as far as they are told.

    Where the types themselves are denied the packaged catalog's are listed, and
    `missing` says so.
    """
    region = clients.region
    advice = Advice()
    rates = ask(lambda: prices.rates(clients))
    rows = ask(lambda: hardware.with_gpu(clients))
    known = advice.take(rows, "instance types, so those of the packaged catalog are listed", {})
    names = known or {entry.type: None for entry in packaged()}
    bases = [hardware.offer(name, known.get(name), ()) for name in names]
    wanted = [base for base in bases if fits(base, query)]
    return OfferList(
        region=region,
        offers=_priced(clients, advice, query, wanted),
        rates=advice.take(rates, "prices of volume and address", Rates()),
        missing=tuple(advice.missing),
    )


def fits(base: Offer, query: OfferQuery) -> bool:
    """Whether a type is what a query asks for."""
    named = query.gpu is None or query.gpu.lower() in base.gpu_name.lower()
    large = query.gpu_memory_gib is None or base.gpu_memory_mib >= query.gpu_memory_gib * 1024 * 0.95
    chosen = query.types is None or base.type in query.types
    return named and large and chosen


def _priced(clients: Clients, advice: Advice, query: OfferQuery, bases: list[Offer]) -> tuple[Offer, ...]:
    names = [base.type for base in bases]
    wants_spot = "spot" in query.markets
    asked = prices.on_demand(clients, names if "on-demand" in query.markets else ())
    history = ask(lambda: prices.spot(clients, names if wants_spot else ()))
    places = ask(lambda: hardware.zones(clients, names))
    spot = advice.take(history, "spot prices", {})
    zones = advice.take(places, "zones", {})
    found: list[Offer] = []
    for base in (replace(one, zones=zones.get(one.type, ())) for one in bases):
        if base.type in asked:
            found.append(priced(base, prices.settled(clients, advice, base.type, asked[base.type])))
        if wants_spot:
            found.append(spot_offer(clients, base, spot.get(base.type, ())))
    return tuple(found)
