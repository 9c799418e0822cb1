"""Prices: the Price List API and the spot price history, from the packaged catalog.

On demand the catalog's price of us-east-1 is scaled by a factor a region, and spot is
about a third of it, a little different in each zone. Both are made up but steady, so
that a plan has something to compare; only us-east-1's on-demand prices are real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from cloudtrain.catalog.gpu import CatalogEntry, packaged
from cloudtrain.sandbox import offerings
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.wire import Forward, Reply, Request, dry_run, json_reply, paged, xml

REGIONS = {
    "us-east-1": 1.0,
    "us-east-2": 1.0,
    "us-west-1": 1.2,
    "us-west-2": 1.0,
    "ca-central-1": 1.11,
    "eu-central-1": 1.25,
    "eu-west-1": 1.12,
    "eu-north-1": 1.06,
    "ap-northeast-1": 1.35,
    "ap-south-1": 1.1,
    "ap-southeast-1": 1.4,
    "cn-north-1": 8.0,
    "cn-northwest-1": 6.0,
}
"""What the catalog's price is multiplied with; in China the result is in yuan."""

_SYSTEMS = {"Linux/UNIX": 1.0, "SUSE Linux": 1.1, "Red Hat Enterprise Linux": 1.15, "Windows": 1.5}
_VPC = " (Amazon VPC)"
_ZONES = {"a": 0.36, "b": 0.33, "c": 0.35, "d": 0.38, "e": 0.34, "f": 0.31}
_CHANGES = (timedelta(hours=5), timedelta(hours=29), timedelta(hours=61))
_PAGE = 100


def behaviours(loaded: Callable[[], object]) -> Mapping[tuple[str, str], Behaviour]:
    """Return what to do for which call; `loaded` waits for moto, whose tables say what is offered."""

    def waiting(behaviour: Behaviour) -> Behaviour:
        def waited(request: Request, forward: Forward) -> Reply:
            loaded()
            return behaviour(request, forward)

        return waited

    return {
        ("pricing", "GetProducts"): waiting(get_products),
        ("ec2", "DescribeSpotPriceHistory"): waiting(spot_history),
    }


def spot_price(type_name: str, zone: str) -> float | None:
    """Return the current spot price of Linux in a zone; None for a type nobody knows a price of."""
    known = packaged((type_name,))
    factor = REGIONS.get(zone[:-1])
    if not known or factor is None:
        return None
    return round(known[0].price_hour * factor * _ZONES.get(zone[-1], 0.34), 4)


def get_products(request: Request, forward: Forward) -> Reply:  # noqa: ARG001 - moto has no prices
    """Answer the rows that match every filter, as TERM_MATCH and EQUALS do."""
    asked = request.json
    rows = cast("list[dict[str, Any]]", asked.get("Filters", []))
    wanted = {str(row.get("Field")): str(row.get("Value")) for row in rows}
    found = [row for row in _products(wanted) if _fits(row, wanted)]
    start, size = int(asked.get("NextToken") or 0), int(asked.get("MaxResults") or _PAGE)
    answer: dict[str, Any] = {
        "FormatVersion": "aws_v1",
        "PriceList": [json.dumps(row) for row in found[start : start + size]],
    }
    if start + size < len(found):
        answer["NextToken"] = str(start + size)
    return json_reply(answer)


def spot_history(request: Request, forward: Forward) -> Reply:  # noqa: ARG001 - moto has one made-up price
    """Answer each zone's price, from the last change before `StartTime` on."""
    if request.params.get("DryRun") == "true":
        return dry_run(request)
    types = request.numbered("InstanceType") or [entry.type for entry in packaged()]
    systems = request.numbered("ProductDescription") or [*_SYSTEMS]
    filters = request.filters()
    types = filters.get("instance-type", types)
    systems = filters.get("product-description", systems)
    zone = request.params.get("AvailabilityZone")
    only = {zone} if zone else set(filters.get("availability-zone", []))
    rows = [
        row
        for type_name in types
        for place in offerings.zones(request.region, type_name)
        if not only or place in only
        for system in systems
        for row in _changes(request, type_name, place, system)
    ]
    return xml(request.action, paged(request, rows, "spotPriceHistorySet"))


def _changes(request: Request, type_name: str, zone: str, system: str) -> Iterator[str]:
    factor = _SYSTEMS.get(system.removesuffix(_VPC))
    price = spot_price(type_name, zone)
    if factor is None or price is None:
        return
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = _moment(request.params.get("StartTime")) or datetime.min.replace(tzinfo=UTC)
    end = _moment(request.params.get("EndTime")) or datetime.max.replace(tzinfo=UTC)
    for number, age in enumerate(_CHANGES):
        at = now - age
        if at <= end:
            yield (
                f"<item><instanceType>{type_name}</instanceType><productDescription>{system}"
                f"</productDescription><spotPrice>{price * factor * (1 + number / 50):.6f}</spotPrice>"
                f"<timestamp>{at:%Y-%m-%dT%H:%M:%S.000Z}</timestamp>"
                f"<availabilityZone>{zone}</availabilityZone></item>"
            )
        if at <= start:
            return


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _products(wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    only = wanted.get("instanceType")
    for entry in packaged((only,) if only else None):
        for region, factor in REGIONS.items():
            if offerings.zones(region, entry.type) or region.startswith("cn-"):
                yield _product(entry, region, entry.price_hour * factor)
                yield _product(entry, region, entry.price_hour * factor * 1.5, operatingSystem="Windows")
                # The row that makes `capacitystatus=Used` a filter nobody may forget.
                yield _product(entry, region, 0.0, capacitystatus="AllocatedCapacityReservation")


def _product(entry: CatalogEntry, region: str, price: float, **changes: str) -> dict[str, Any]:
    attributes = {
        "instanceType": entry.type,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "licenseModel": "No License required",
        "marketoption": "OnDemand",
        "vcpu": str(entry.vcpus),
        "memory": f"{entry.memory_mib // 1024} GiB",
        "gpu": str(entry.gpu_count),
        **changes,
    }
    money = {"CNY" if region.startswith("cn-") else "USD": f"{price:.10f}"}
    terms = {"OnDemand": {"sku.term": {"priceDimensions": {"rate": {"unit": "Hrs", "pricePerUnit": money}}}}}
    return {
        "product": {"productFamily": "Compute Instance", "attributes": attributes},
        "serviceCode": "AmazonEC2",
        "terms": terms,
    }


def _fits(row: dict[str, Any], wanted: Mapping[str, str]) -> bool:
    attributes: dict[str, str] = row["product"]["attributes"]
    return all(attributes.get(field, "").lower() == value.lower() for field, value in wanted.items())
