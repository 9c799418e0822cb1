"""What a RunInstances says about market, zone and tags, and what EC2 refuses of it. Pure."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Any

from cloudtrain.sandbox import prices
from cloudtrain.sandbox.spot import SpotRequest
from cloudtrain.sandbox.wire import Reply, Request, failure

_OPTIONS = "InstanceMarketOptions."
_SPOT = f"{_OPTIONS}SpotOptions."
_SPEC = re.compile(r"TagSpecification\.(\d+)\.(ResourceType|Tag\.(\d+)\.(Key|Value))")
_LOWEST_PRICE = 0.001


def is_spot(request: Request) -> bool:
    """Whether a launch is of the spot market."""
    return request.params.get(f"{_OPTIONS}MarketType") == "spot"


def name(request: Request) -> str:
    """Return `spot` or `on-demand`."""
    return "spot" if is_spot(request) else "on-demand"


def is_persistent(request: Request) -> bool:
    """Whether a launch makes a persistent spot request."""
    return is_spot(request) and request.params.get(f"{_SPOT}SpotInstanceType") == "persistent"


def refusal(request: Request) -> Reply | None:
    """Return why EC2 does not accept the spot options, or None.

    The combinations are those that the API reference of RunInstances and AWS's page
    "Behavior of Spot Instance interruptions" exclude.
    """
    if not is_spot(request):
        return None
    params = request.params
    behaviour = params.get(f"{_SPOT}InstanceInterruptionBehavior", "terminate")
    price = params.get(f"{_SPOT}MaxPrice")
    text = ""
    if is_persistent(request) and behaviour == "terminate":
        text = "Persistent Spot Instance requests need the interruption behavior stop or hibernate."
    elif not is_persistent(request) and behaviour != "terminate":
        text = f"The interruption behavior {behaviour} needs a persistent Spot Instance request."
    elif not is_persistent(request) and f"{_SPOT}ValidUntil" in params:
        text = "ValidUntil is not supported for one-time Spot Instance requests."
    elif is_persistent(request) and params.get("InstanceInitiatedShutdownBehavior") == "terminate":
        text = "The shutdown behavior terminate cannot be used with a persistent Spot Instance request."
    if text:
        return failure(request, "InvalidParameterCombination", text)
    if price is not None and float(price) <= _LOWEST_PRICE:
        return failure(request, "InvalidParameterValue", f"Value ({price}) for parameter price is invalid.")
    return None


def price_refusal(request: Request, zone: str | None) -> Reply | None:
    """Return the refusal of a maximum price that is below the current one, or None."""
    price = request.params.get(f"{_SPOT}MaxPrice")
    least = prices.spot_price(request.params.get("InstanceType", ""), zone) if zone else None
    if not is_spot(request) or price is None or least is None or float(price) >= least:
        return None
    text = (
        f"Your Spot request price of {price} is lower than the minimum required Spot request fulfillment "
        f"price of {least}."
    )
    return failure(request, "SpotMaxPriceTooLow", text)


def zone(request: Request, backend: Any) -> str | None:  # noqa: ANN401 - moto's records
    """Return the zone that a launch asks for, by name or by subnet; None for any."""
    params = request.params
    subnet = params.get("SubnetId") or params.get("NetworkInterface.1.SubnetId")
    if subnet:
        return next(
            (str(one.availability_zone) for one in backend.describe_subnets() if one.id == subnet), None
        )
    return params.get("Placement.AvailabilityZone")


def placed(request: Request, zone: str | None) -> Request:
    """Return the launch with the zone that EC2 chose where it asks for none."""
    asked = {"SubnetId", "NetworkInterface.1.SubnetId", "Placement.AvailabilityZone"}
    if zone is None or asked & set(request.params):
        return request
    return request.with_params({**request.params, "Placement.AvailabilityZone": zone})


def spot_request(request: Request, zone: str, visible_at: float) -> SpotRequest:
    """Return the spot request that a launch makes."""
    params = {k: v for k, v in request.params.items() if k not in ("ClientToken", "MinCount", "MaxCount")}
    launch = request.with_params({**params, "MinCount": "1", "MaxCount": "1"})
    least = prices.spot_price(params.get("InstanceType", ""), zone) if zone else None
    return SpotRequest(
        id=f"sir-{secrets.token_hex(4)}",
        launch=launch,
        persistent=is_persistent(request),
        behaviour=params.get(f"{_SPOT}InstanceInterruptionBehavior", "terminate"),
        price=params.get(f"{_SPOT}MaxPrice") or (str(least) if least else ""),
        visible_at=visible_at,
        created=datetime.now(UTC),
        zone=zone,
    )


def tags(request: Request, kind: str) -> dict[str, str]:
    """Return the tags that a launch gives to a kind of resource."""
    parts = [(match, value) for name, value in request.params.items() if (match := _SPEC.fullmatch(name))]
    wanted = {match[1] for match, value in parts if match[2] == "ResourceType" and value == kind}
    found: dict[str, dict[str, str]] = {}
    for match, value in parts:
        if match[1] in wanted and match[3]:
            found.setdefault(f"{match[1]}.{match[3]}", {})[match[4]] = value
    return {pair["Key"]: pair.get("Value", "") for pair in found.values()}
