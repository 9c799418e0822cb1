"""`offers`: what can be had, what it costs, and what the lease would come to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cloudtrain.models.account import OfferQuery
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Offer, Rates
from cloudtrain.providers.base import Provider
from cloudtrain.provision.plan import ENVIRONMENT_GB, SMALLEST_GB, lease_hours, rescue_hours

USUAL_IMAGE_GB = 8
"""The root snapshot of Canonical's Ubuntu images; a price list needs no more exact word."""


@dataclass(frozen=True, slots=True)
class Row:
    """One offer. `hour` includes volume and address; `lease` is that for lease and rescue."""

    offer: Offer
    hour: float | None
    lease: float | None


@dataclass(frozen=True, slots=True)
class Offers:
    """What one region offers, cheapest first."""

    region: str
    rows: tuple[Row, ...]
    rates: Rates
    volume_gb: int
    lease_hours: float
    missing: tuple[str, ...]


def offers(
    provider: Provider, config: Config, query: OfferQuery, *, max_price: float | None = None
) -> Offers:
    """Ask for offers and price them for this configuration.

    `max_price` is an hour's, with volume and address; what has no known price is then
    left out.
    """
    found = provider.offers(query)
    volume = config.instance.volume_gb or max(
        SMALLEST_GB, USUAL_IMAGE_GB + ENVIRONMENT_GB[config.environment.manager]
    )
    rows = [_row(offer, found.rates, volume, config) for offer in found.offers]
    if max_price is not None:
        rows = [row for row in rows if row.hour is not None and row.hour <= max_price]
    rows.sort(key=lambda row: (row.hour if row.hour is not None else math.inf, row.offer.type))
    return Offers(found.region, tuple(rows), found.rates, volume, lease_hours(config, None), found.missing)


def _row(offer: Offer, rates: Rates, volume: int, config: Config) -> Row:
    hour = rates.hourly(offer.price_hour, volume)
    hours = lease_hours(config, hour) + rescue_hours(config, hour)
    return Row(offer, hour, None if hour is None else hour * hours)
