"""Everything a plan wants to know, asked side by side and with a short deadline.

Only what cannot be guessed stops a plan (an image, a type that does not exist);
prices, zones and the caller's address are advice: denied or late, they are named
in `Survey.missing` and the plan goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import botocore.exceptions as boto

from cloudtrain.catalog.gpu import CatalogEntry, packaged
from cloudtrain.errors import CloudtrainError, UsageError
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Market
from cloudtrain.models.plan import Offer, Survey
from cloudtrain.providers.aws import images
from cloudtrain.providers.aws.access import caller_address, checked_address
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import code_of, translate

T = TypeVar("T")
MARKETS: dict[str, tuple[Market, ...]] = {
    "on-demand": ("on-demand",),
    "spot": ("spot",),
    "spot-then-on-demand": ("spot", "on-demand"),
}


@dataclass(slots=True)
class _Advice:
    """Collects answers that are welcome but not needed."""

    missing: list[str] = field(default_factory=list[str])

    def take(self, future: Future[T], what: str, default: T) -> T:
        try:
            return future.result()
        except (boto.ClientError, boto.BotoCoreError, CloudtrainError, KeyError, ValueError) as error:
            self.say(what, error)
            return default

    def say(self, what: str, error: Exception) -> None:
        """Name what is missing, once, with the reason."""
        reason = code_of(error) if isinstance(error, boto.ClientError) else type(error).__name__
        text = f"{what} ({reason})"
        if text not in self.missing:
            self.missing.append(text)


def survey(clients: Clients, config: Config) -> Survey:
    """Ask for offers, image and address at once."""
    types = config.instance.type
    region = clients.region
    advice = _Advice()
    with ThreadPoolExecutor(8, thread_name_prefix="survey") as pool:
        image = pool.submit(images.resolve, clients, config.instance.image)
        address = pool.submit(ingress, clients, config)
        prices = {name: pool.submit(_on_demand_price, clients, name) for name in types}
        spot = pool.submit(_spot_prices, clients, types, config.instance.market)
        zones = pool.submit(_zones, clients, types)
        details = pool.submit(_details, clients, types)
        offers = _offers(config, advice, details, zones, prices, spot)
        return Survey(
            region=region,
            offers=offers,
            image=_needed(image),
            ingress=_known(advice, address),
            missing=tuple(advice.missing),
        )


def _known(advice: _Advice, address: Future[str]) -> str | None:
    try:
        return address.result()
    except CloudtrainError as error:
        advice.say("your public address", error)
        return None


def _needed(future: Future[T]) -> T:
    try:
        return future.result()
    except (boto.ClientError, boto.BotoCoreError) as error:
        raise translate(error, "looking up the image") from error


def _offers(
    config: Config,
    advice: _Advice,
    details: Future[dict[str, dict[str, Any]]],
    zones: Future[dict[str, tuple[str, ...]]],
    prices: dict[str, Future[tuple[float, str]]],
    spot: Future[dict[str, float]],
) -> tuple[Offer, ...]:
    packaged_rows = {entry.type: entry for entry in packaged(config.instance.type)}
    try:
        described = details.result()
    except boto.ClientError as error:
        if code_of(error) in ("InvalidInstanceType", "InvalidParameterValue"):
            raise UsageError(
                f"there is no such instance type: {', '.join(config.instance.type)}",
                hint="`instance.type` is written like g4dn.xlarge",
            ) from error
        described = advice.take(details, "instance types", {})
    except (boto.BotoCoreError, CloudtrainError):
        described = advice.take(details, "instance types", {})
    places = advice.take(zones, "zones", {})
    spot_prices = advice.take(spot, "spot prices", {})
    found: list[Offer] = []
    for name in config.instance.type:
        entry = packaged_rows.get(name)
        fallback = (entry.price_hour, f"catalog {entry.priced}") if entry else None
        price = _price(advice, prices[name], fallback)
        base = _base_offer(name, described.get(name), entry, places.get(name, ()))
        for market in MARKETS[config.instance.market]:
            chosen = (spot_prices.get(name), "api") if market == "spot" else price
            found.append(replace(base, market=market, price_hour=chosen[0], price_source=chosen[1]))
    return tuple(found)


def _price(
    advice: _Advice, future: Future[tuple[float, str]], fallback: tuple[float, str] | None
) -> tuple[float | None, str]:
    """Return the price and its source: the price list's, else the packaged one, else None."""
    unknown: tuple[float | None, str] = fallback or (None, "")
    try:
        return future.result()
    except (boto.ClientError, boto.BotoCoreError, CloudtrainError, KeyError, ValueError) as error:
        advice.say("current prices", error)
        return unknown


def _base_offer(
    name: str, item: dict[str, Any] | None, entry: CatalogEntry | None, zones: tuple[str, ...]
) -> Offer:
    if item is not None:
        gpu: dict[str, Any] = item.get("GpuInfo", {})
        gpus: list[dict[str, Any]] = gpu.get("Gpus", [])
        first = gpus[0] if gpus else {}
        return Offer(
            type=name,
            market="on-demand",
            zones=zones,
            vcpus=int(item.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
            memory_mib=int(item.get("MemoryInfo", {}).get("SizeInMiB", 0)),
            gpu_name=str(first.get("Name", "")),
            gpu_count=int(first.get("Count", 0)),
            gpu_memory_mib=int(gpu.get("TotalGpuMemoryInMiB", 0)),
            price_hour=None,
        )
    return Offer(
        type=name,
        market="on-demand",
        zones=zones,
        vcpus=entry.vcpus if entry else 0,
        memory_mib=entry.memory_mib if entry else 0,
        gpu_name=entry.gpu_name if entry else "",
        gpu_count=entry.gpu_count if entry else 0,
        gpu_memory_mib=entry.gpu_memory_mib if entry else 0,
        price_hour=None,
    )


def _details(clients: Clients, types: Sequence[str]) -> dict[str, dict[str, Any]]:
    names: Any = list(types)
    rows = clients.advice.describe_instance_types(InstanceTypes=names)["InstanceTypes"]
    return {str(row.get("InstanceType")): cast("dict[str, Any]", row) for row in rows}


def _zones(clients: Clients, types: Sequence[str]) -> dict[str, tuple[str, ...]]:
    rows = clients.advice.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": list(types)}]
    )["InstanceTypeOfferings"]
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(str(row.get("InstanceType")), []).append(str(row.get("Location")))
    return {name: tuple(sorted(places)) for name, places in found.items()}


def _spot_prices(clients: Clients, types: Sequence[str], market: str) -> dict[str, float]:
    if market == "on-demand":
        return {}
    names: Any = list(types)
    rows = clients.advice.describe_spot_price_history(
        InstanceTypes=names, ProductDescriptions=["Linux/UNIX"], StartTime=datetime.now(UTC)
    )["SpotPriceHistory"]
    found: dict[str, float] = {}
    for row in rows:
        name, price = str(row.get("InstanceType")), float(row.get("SpotPrice", "inf"))
        found[name] = min(found.get(name, price), price)
    return found


def _on_demand_price(clients: Clients, name: str) -> tuple[float, str]:
    """Ask the Price List API. `capacitystatus=Used` keeps zero-price reservations out."""
    wanted = {
        "instanceType": name,
        "regionCode": clients.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
    rows = clients.pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
    prices = [price for row in rows for price in _dollars(json.loads(row)) if price > 0]
    return min(prices), "api"


def _dollars(product: dict[str, Any]) -> list[float]:
    terms: dict[str, Any] = product.get("terms", {}).get("OnDemand", {})
    dimensions = [item for term in terms.values() for item in term["priceDimensions"].values()]
    return [float(next(iter(item["pricePerUnit"].values()))) for item in dimensions]


def ingress(clients: Clients, config: Config) -> str:
    """Return the caller's address, given or asked. Raises `CloudError`."""
    given = config.access.ingress or clients.settings.ingress
    return checked_address(given) if given else caller_address(config.access.address_service)
