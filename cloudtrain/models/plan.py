"""What is on offer, what will be done, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cloudtrain.models.machine import Machine, Market

HOURS_A_MONTH = 730
"""AWS bills a month of storage as this many hours (EBS pricing page)."""


@dataclass(frozen=True, slots=True)
class ZonePrice:
    """What an hour costs in one zone."""

    zone: str
    price_hour: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What a machine costs beside itself, in one region; None when nobody would say.

    `volume_gb_month` is for gp3 storage, `address_hour` for a public IPv4 address;
    the catalog's are us-east-1's (AWS's price list, 2026-08-17).
    """

    volume_gb_month: float | None = 0.08
    address_hour: float | None = 0.005
    currency: str = "USD"
    source: str = "catalog 2026-08-17"

    def hourly(self, machine: float | None, volume_gb: int) -> float | None:
        """Return the price of an hour of machine, volume and address; None if a part is not known."""
        storage = self.storage_hour(volume_gb)
        if machine is None or storage is None or self.address_hour is None:
            return None
        return machine + storage + self.address_hour

    def storage_hour(self, volume_gb: int) -> float | None:
        """Return the price of an hour of a volume, which a stopped machine still costs."""
        return None if self.volume_gb_month is None else volume_gb * self.volume_gb_month / HOURS_A_MONTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to get one machine. Prices are per hour; None when nobody would say.

    `price_source` is `api`, or the date of the packaged catalog, e.g. `catalog 2026-08-17`.
    A spot offer names its zones cheapest first, with the price in each.
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
    zone_prices: tuple[ZonePrice, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A machine image. `floor_gb` is the smallest root volume it starts from."""

    id: str
    name: str
    user: str
    root_device: str
    floor_gb: int
    baked: bool = False
    """Whether it is of our own making and holds the environment already."""


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
    rates: Rates = Rates()
    inside: str | None = None
    """The subnet, as a CIDR, where the machine will have a private address only."""


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

    `price_hour` includes machine, root volume and public address; `lease_cost` is the
    most that the lease can come to, whichever of the offers is had, with the `rescue_hours`
    that bringing the weights home may take after it. None when a price is not known. `alternatives` are tried in order when `offer` is refused.
    """

    actions: tuple[Action, ...]
    offer: Offer | None
    image: Image | None
    region: str
    volume_gb: int
    price_hour: float | None
    lease_hours: float | None
    lease_cost: float | None
    deadline: datetime | None
    notes: tuple[str, ...] = ()
    rescue_hours: float = 0.0
    alternatives: tuple[Offer, ...] = ()

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
    public_address: bool | None = None
    """Whether it gets one; None leaves it to the subnet."""
    containers: bool = False
    """Whether containers on the machine read its metadata, which takes one more network hop."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run cost and what is left of it: `leftovers` should be empty.

    Of the `hours` the machine was off for `parked_hours`, at the price of its volume.
    `ended_by` is why the machine's guard had powered it off, empty where it never did.
    """

    hours: float
    cost: float | None
    currency: str
    leftovers: tuple[str, ...]
    parked_hours: float = 0.0
    ended_by: str = ""


FoundKind = Literal[
    "instance",
    "spot-request",
    "volume",
    "interface",
    "address",
    "snapshot",
    "image",
    "security-group",
    "key-pair",
]


@dataclass(frozen=True, slots=True)
class Found:
    """One thing in the account that carries our tags. `mine` says that the caller made it.

    `price_month` is what it costs as it is now, None when nobody would say, 0 for what
    is free. `machine` is the instance that it belongs to, or that a spot request may
    launch again. `detail` is for people.
    """

    kind: FoundKind
    id: str
    run: str
    state: str
    mine: bool
    region: str = ""
    owner: str = ""
    price_month: float | None = None
    currency: str = "USD"
    machine: str = ""
    detail: str = ""
