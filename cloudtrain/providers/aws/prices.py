"""What machines, volumes and addresses cost: the Price List API and the spot price history.

The Price List answers in few regions for all of them, and in the partition's own
currency (CNY in China). It knows no spot prices; those come from EC2's history.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudtrain.catalog.gpu import REGION, packaged
from cloudtrain.models.plan import Rates, ZonePrice
from cloudtrain.providers.aws.advice import DENIED, Advice, ask_each
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import FAILURES

CURRENCY = {"aws": "USD", "aws-cn": "CNY"}


@dataclass(frozen=True, slots=True)
class Price:
    """One price with its source; `amount` is None when nobody would say."""

    amount: float | None
    currency: str
    source: str


def on_demand(clients: Clients, types: Iterable[str]) -> dict[str, Future[Price]]:
    """Ask the Linux on-demand price of each type, side by side.

    After one refusal by the service itself the rest is not asked: thirty denials say
    no more than one.
    """
    refused: list[Exception] = []

    def question(name: str) -> Price:
        if refused:
            raise refused[0]
        try:
            return _machine_price(clients, name)
        except FAILURES as error:
            refused.append(error)
            raise

    return ask_each(question, types)


def settled(clients: Clients, advice: Advice, name: str, asked: Future[Price]) -> Price:
    """Return the asked price, else the packaged one with its date, else none."""
    try:
        return advice.wait(asked)
    except ValueError:  # the list has no such type in this region, which is an answer
        return _packaged(clients, name)
    except DENIED as error:
        advice.say("current prices", error)
        return _packaged(clients, name)


def _packaged(clients: Clients, name: str) -> Price:
    currency = CURRENCY[clients.partition]
    entry = next(iter(packaged((name,))), None)
    if entry is None or clients.partition != "aws":  # another currency, another price
        return Price(None, currency, "")
    where = "" if clients.region == REGION else f", {REGION}"
    return Price(entry.price_hour, currency, f"catalog {entry.priced}{where}")


def _machine_price(clients: Clients, name: str) -> Price:
    """`capacitystatus=Used` keeps the zero-price rows of reservations out."""
    return _listed(
        clients,
        "AmazonEC2",
        instanceType=name,
        operatingSystem="Linux",
        tenancy="Shared",
        preInstalledSw="NA",
        capacitystatus="Used",
    )


def rates(clients: Clients) -> Rates:
    """Ask what storage and a public address cost here; what is not told is the catalog's.

    In another currency than the catalog's it is None.
    """
    known = Rates() if clients.partition == "aws" else Rates(None, None, CURRENCY[clients.partition], "")
    asked = ask_each(lambda call: call(clients), (_volume_price, _address_price))
    found: list[float | None] = []
    for future in asked.values():
        try:
            found.append(future.result().amount)
        except DENIED:
            found.append(None)
    volume, address = found
    if volume is None and address is None:
        return known
    return Rates(
        volume if volume is not None else known.volume_gb_month,
        address if address is not None else known.address_hour,
        known.currency,
        "api",
    )


def _volume_price(clients: Clients) -> Price:
    return _listed(clients, "AmazonEC2", volumeApiName="gp3", productFamily="Storage")


def _address_price(clients: Clients) -> Price:
    return _listed(clients, "AmazonVPC", group="VPCPublicIPv4Address")


def _listed(clients: Clients, service: str, **wanted: str) -> Price:
    """Return the lowest positive on-demand price. Raises `ValueError` where there is none."""
    fields = {**wanted, "regionCode": clients.region}
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in fields.items()]
    rows = clients.pricing.get_products(ServiceCode=service, Filters=filters)["PriceList"]
    amounts = [pair for row in rows for pair in _amounts(json.loads(row)) if pair[0] > 0]
    amount, currency = min(amounts)
    return Price(amount, currency, "api")


def _amounts(product: dict[str, Any]) -> list[tuple[float, str]]:
    terms: dict[str, Any] = product.get("terms", {}).get("OnDemand", {})
    units = [item["pricePerUnit"] for term in terms.values() for item in term["priceDimensions"].values()]
    return [(float(amount), str(currency)) for unit in units for currency, amount in unit.items()]


def spot(clients: Clients, types: Sequence[str]) -> dict[str, tuple[ZonePrice, ...]]:
    """Return the newest spot price of each type in each zone, cheapest zone first."""
    if not types:
        return {}
    request: Any = {
        "InstanceTypes": list(types),
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": datetime.now(UTC),
    }
    pages = clients.advice.get_paginator("describe_spot_price_history").paginate(**request)
    newest: dict[tuple[str, str], tuple[datetime, float]] = {}
    for page in pages:
        for row in page["SpotPriceHistory"]:
            key = str(row.get("InstanceType")), str(row.get("AvailabilityZone"))
            seen = (
                row.get("Timestamp") or datetime.min.replace(tzinfo=UTC),
                float(row.get("SpotPrice", "inf")),
            )
            newest[key] = max(newest.get(key, seen), seen)
    return {name: _of(name, newest) for name in types if any(key[0] == name for key in newest)}


def _of(name: str, newest: dict[tuple[str, str], tuple[datetime, float]]) -> tuple[ZonePrice, ...]:
    found = [ZonePrice(zone, price) for (kind, zone), (_, price) in newest.items() if kind == name]
    return tuple(sorted(found, key=lambda one: (one.price_hour, one.zone)))
