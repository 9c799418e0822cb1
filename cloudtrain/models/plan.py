"""What is on offer, what will be done, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cloudtrain.models.machine import Machine, Market


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to get one machine. Prices are per hour; None when nobody would say.

    `price_source` is `api`, or the date of the packaged catalog, e.g. `catalog 2026-08-17`.
    """

    type: str
    market: Market
    zones: tuple[str, ...]
    vcpus: int
    memory_mib: int
    gpu_name: str
    gpu_count: int
    gpu_memory_mib: int
    price_hour: float | None
    currency: str = "USD"
    price_source: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A machine image. `floor_gb` is the smallest root volume it starts from."""

    id: str
    name: str
    user: str
    root_device: str
    floor_gb: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What the cloud said when asked for advice: everything a plan needs, all read-only.

    `missing` names each piece of advice that was denied or did not come in time.
    """

    region: str
    offers: tuple[Offer, ...]
    image: Image
    ingress: str | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What exists of one run in the cloud now."""

    machines: tuple[Machine, ...]
    key_pair: str | None
    security_group: str | None
    leftovers: tuple[str, ...] = ()
    """Ids of anything else that carries the run's tags: volumes, requests, interfaces."""

    @property
    def empty(self) -> bool:
        """Whether nothing billable and nothing of ours is left."""
        alive = any(machine.alive for machine in self.machines)
        return not (alive or self.key_pair or self.security_group or self.leftovers)


@dataclass(frozen=True, slots=True)
class Action:
    """One change to the account. `what` is for the user; `why` names its reason."""

    kind: Literal["key-pair", "security-group", "ingress", "launch", "start", "terminate", "release"]
    what: str
    why: str
    resource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `up` or `down` will do. Pure data; an empty plan changes nothing.

    `price_hour` includes machine, root volume and public address; `lease_cost` is
    `price_hour` times `lease_hours`. None when the price is not known.
    """

    actions: tuple[Action, ...]
    offer: Offer | None
    image: Image | None
    region: str
    volume_gb: int
    price_hour: float | None
    lease_hours: float
    lease_cost: float | None
    deadline: datetime | None
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.actions


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One resolved launch attempt: everything RunInstances is told."""

    type: str
    market: Market
    zone: str | None
    image: Image
    volume_gb: int
    user_data: str
    key_name: str
    security_group: str
    subnet: str | None
    tags: dict[str, str]
    after_power_off: Literal["stop", "terminate"]
    containers: bool = False
    """Whether containers on the machine read its metadata, which takes one more network hop."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run cost and what is left of it: `leftovers` should be empty."""

    hours: float
    cost: float | None
    currency: str
    leftovers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One thing in the account that carries our tags. `mine` says that the caller made it."""

    kind: Literal["instance", "volume", "spot-request", "key-pair", "security-group", "interface"]
    id: str
    run: str
    state: str
    mine: bool
