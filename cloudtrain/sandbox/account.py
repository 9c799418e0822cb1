"""What the account may have and what EC2 has left: quotas and capacity, in one file.

`account.json` in the state folder, read anew whenever it changes:

    {"quotas": {"L-DB2E81BA": 4},
     "capacity": {"g4dn.xlarge": {"us-east-1a": 0, "us-east-1b": {"spot": 1}}},
     "open_requests": true, "approve": true}

A quota holds in every region, in vCPUs; without one it is generous. A capacity is the
number of instances that can run in a zone, of either market or of one; without one
there is no end to it. `open_requests` leaves a persistent spot request open when its
launch is refused for capacity; `approve` grants quota increases as they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cloudtrain.sandbox import offerings
from cloudtrain.sandbox.fleet import Fleet, Life
from cloudtrain.sandbox.wire import Reply, Request, failure

GENEROUS = 1920.0
"""vCPUs: ten of the largest instances of the catalog."""

QUOTAS = {
    "L-DB2E81BA": ("Running On-Demand G and VT instances", 0.0),
    "L-417A185B": ("Running On-Demand P instances", 0.0),
    "L-3819A6DF": ("All G and VT Spot Instance Requests", 0.0),
    "L-7212CCBC": ("All P4, P3 and P2 Spot Instance Requests", 0.0),
    "L-C4BD4855": ("All P5 Spot Instance Requests", 0.0),
    "L-1216C47A": ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0),
    "L-34B43A08": ("All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5.0),
}
"""Code to name and AWS's default value in vCPUs."""

_RUNNING = {"pending", "running"}


@dataclass(frozen=True, slots=True)
class Settings:
    """One reading of `account.json`."""

    quotas: Mapping[str, float] = field(default_factory=dict[str, float])
    capacity: Mapping[str, Mapping[str, int | Mapping[str, int]]] = field(
        default_factory=dict[str, dict[str, int | Mapping[str, int]]]
    )
    open_requests: bool = False
    approve: bool = False


class Account:
    """The limits of this account, and who is inside of them."""

    def __init__(self, path: Path, fleet: Fleet) -> None:
        self.granted: dict[tuple[str, str], float] = {}
        self._path = path
        self._fleet = fleet
        self._read: tuple[tuple[int, int], Settings] = ((0, 0), Settings())

    def settings(self) -> Settings:
        """Return what the file says now; a file that is not there says nothing."""
        try:
            status = self._path.stat()
            mark = (status.st_mtime_ns, status.st_ino)
            if mark != self._read[0]:
                self._read = (mark, _parsed(json.loads(self._path.read_text())))
        except (OSError, ValueError):
            return Settings()
        return self._read[1]

    def quota(self, region: str, code: str) -> float:
        """Return the applied value of a quota, in vCPUs."""
        return self.granted.get((region, code)) or self.settings().quotas.get(code, GENEROUS)

    def zone(self, region: str, type_name: str, market: str) -> str | None:
        """Return the first zone that can start one more instance."""
        open_zones = self._open_zones(region, type_name, market)
        return open_zones[0] if open_zones else None

    def has_room(self, zone: str, type_name: str, market: str) -> bool:
        """Whether a zone can start one more instance."""
        limit = self.settings().capacity.get(type_name, {}).get(zone)
        if isinstance(limit, Mapping):
            limit = limit.get(market)
            used = [life for life in self._running(zone[:-1], zone, type_name) if _market(life) == market]
        else:
            used = self._running(zone[:-1], zone, type_name)
        return limit is None or len(used) < limit

    def refusal(
        self, request: Request, type_name: str, market: str, zone: str | None, count: int = 1
    ) -> Reply | None:
        """Return why EC2 does not start `count` more instances of a type, or None."""
        offered = offerings.zones(request.region, type_name)
        if not offered:
            return None  # moto says what is wrong with the name
        if zone is not None and zone not in offered:
            return failure(request, "Unsupported", _unsupported(type_name, zone, offered))
        over = self._over_quota(request, type_name, market, count)
        if over is not None:
            return over
        if (zone is None and self.zone(request.region, type_name, market)) or (
            zone is not None and self.has_room(zone, type_name, market)
        ):
            return None
        text = _no_capacity(type_name, market, zone, self._open_zones(request.region, type_name, market))
        return failure(request, "InsufficientInstanceCapacity", text, 500)

    def _over_quota(self, request: Request, type_name: str, market: str, count: int) -> Reply | None:
        code = quota_code(type_name, market)
        if code is None:
            return None
        limit = self.quota(request.region, code)
        used = sum(
            offerings.vcpus(str(life.record.instance_type))
            for life in self._running(request.region)
            if quota_code(str(life.record.instance_type), _market(life)) == code
        )
        if used + count * offerings.vcpus(type_name) <= limit:
            return None
        if market == "spot":
            return failure(request, "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        text = (
            f"You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the "
            "instance bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
        )
        return failure(request, "VcpuLimitExceeded", text)

    def _open_zones(self, region: str, type_name: str, market: str) -> list[str]:
        return [zone for zone in offerings.zones(region, type_name) if self.has_room(zone, type_name, market)]

    def _running(self, region: str, zone: str = "", type_name: str = "") -> list[Life]:
        return [
            life
            for life in self._fleet.lives()
            if life.region == region
            and life.state in _RUNNING
            and (not zone or life.record.availability_zone == zone)
            and (not type_name or life.record.instance_type == type_name)
        ]


def quota_code(type_name: str, market: str) -> str | None:
    """Return the quota that a type counts against; None for families without one here."""
    family = type_name.partition(".")[0]
    spot = market == "spot"
    if family.startswith(("g", "vt")):
        return "L-3819A6DF" if spot else "L-DB2E81BA"
    if family.startswith("p"):
        if not spot:
            return "L-417A185B"
        return "L-C4BD4855" if family.startswith("p5") else "L-7212CCBC"
    if family[:1] in "acdhimrtz" and not family.startswith(("inf", "trn", "dl", "hpc")):
        return "L-34B43A08" if spot else "L-1216C47A"
    return None


def _parsed(raw: object) -> Settings:
    given = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    return Settings(**{name: given[name] for name in Settings.__dataclass_fields__ if name in given})


def _market(life: Life) -> str:
    return "spot" if life.spot else "on-demand"


def _unsupported(type_name: str, zone: str, offered: tuple[str, ...]) -> str:
    return (
        f"Your requested instance type ({type_name}) is not supported in your requested Availability Zone "
        f"({zone}). Please retry your request by not specifying an Availability Zone or choosing "
        f"{', '.join(offered)}."
    )


def _no_capacity(type_name: str, market: str, zone: str | None, others: list[str]) -> str:
    if market == "spot":
        return "There is no Spot capacity available that matches your request."
    if zone is None:
        return (
            f"We currently do not have sufficient {type_name} capacity in zones with support for 'gp3' volumes. "
            "Our system will be working on provisioning additional capacity."
        )
    where = f" or choosing {', '.join(others)}" if others else ""
    return (
        f"We currently do not have sufficient {type_name} capacity in the Availability Zone you requested "
        f"({zone}). Our system will be working on provisioning additional capacity. You can currently get "
        f"{type_name} capacity by not specifying an Availability Zone in your request{where}."
    )
