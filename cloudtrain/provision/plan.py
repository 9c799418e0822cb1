"""What `up` will do, as data: pure functions of what is wanted and what is there.

Prices that are not the machine's own: gp3 storage 0.08 a GB and month and a public
IPv4 address 0.005 an hour (us-east-1, AWS's price list, 2026).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from cloudtrain.errors import UsageError
from cloudtrain.guard import RESCUE_HOURS
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Action, Observation, Offer, Plan, Survey
from cloudtrain.provision import hosts

HOURS_A_MONTH = 730
GP3_GB_MONTH = 0.08
IPV4_HOUR = 0.005
ENVIRONMENT_GB = {"conda": 14, "uv": 10, "venv": 10, "existing": 2}
"""What an environment with PyTorch and ultralytics takes, packages' caches included:
6 GB installed, 3 GB downloaded (measured), Miniconda and its cache on top."""
ROOM = 1.25
"""Outputs, checkpoints and unpacking want room beside what is known."""
LEASE_HOURS = 12.0
"""The lease where nobody gave one: a night's training, and no forgotten week."""

SMALLEST_GB = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Everything that decides a plan. `dataset_bytes` is what will be pushed."""

    config: Config
    survey: Survey
    observed: Observation
    dataset_bytes: int
    now: datetime
    reached: str = ""
    """How the machine will be reached, where that is not at a public address."""


def plan_up(wanted: Wanted) -> Plan:
    """Return what `up` will do. Raises `UsageError` when the volume is too small.

    A machine that runs leaves nothing to do; one that is stopped is started; else
    access is prepared and one machine launched.
    """
    config, survey = wanted.config, wanted.survey
    if config.provider == hosts.OWN:
        return hosts.plan_host(config, survey, wanted.observed, wanted.now)
    inside = ENVIRONMENT_GB[config.environment.manager] if survey.image.baked else 0
    volume = volume_gb(config, survey.image.floor_gb - inside, wanted.dataset_bytes)
    volume = max(volume, survey.image.floor_gb)
    ranked = rank(affordable(config, survey.offers))
    offer = ranked[0] if ranked else None
    price = hourly(offer.price_hour if offer else None, volume)
    hours = lease_hours(config, price)
    return Plan(
        actions=_actions(wanted, offer, volume),
        offer=offer,
        image=survey.image,
        region=survey.region,
        volume_gb=volume,
        price_hour=price,
        lease_hours=hours,
        rescue_hours=rescue_hours(config, price),
        lease_cost=_dearest(config, ranked, volume),
        deadline=wanted.now + timedelta(hours=hours),
        notes=(*_notes(config, survey, price), *((wanted.reached,) if wanted.reached else ())),
        alternatives=ranked[1:],
    )


def affordable(config: Config, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    """Leave out offers without a price where `lease.cost` must be kept, unless none has one."""
    if config.lease.cost is None:
        return offers
    return tuple(offer for offer in offers if offer.price_hour is not None) or offers


def rank(offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    """Order offers as they will be tried: the first type first, then by price.

    Markets keep the order they are offered in (spot before on-demand where both are
    asked for), because that order is the user's wish.
    """
    if not offers:
        return ()
    first = offers[0].type
    markets = list(dict.fromkeys(offer.market for offer in offers))

    def key(offer: Offer) -> tuple[int, bool, float]:
        price = offer.price_hour if offer.price_hour is not None else math.inf
        return markets.index(offer.market), offer.type != first, price

    return tuple(sorted(offers, key=key))


def volume_gb(config: Config, floor_gb: int, dataset_bytes: int) -> int:
    """Return the root volume in GB. Raises `UsageError` when the given one cannot hold it all."""
    known = floor_gb + ENVIRONMENT_GB[config.environment.manager] + 2 * dataset_bytes / 1e9
    needed = max(SMALLEST_GB, math.ceil(known))
    given = config.instance.volume_gb
    if given is None:
        return max(SMALLEST_GB, math.ceil(known * ROOM))
    if given < needed:
        raise UsageError(
            f"a volume of {given} GB is too small: image {floor_gb} GB, environment "
            f"{ENVIRONMENT_GB[config.environment.manager]} GB, dataset {dataset_bytes / 1e9:.1f} GB "
            "and room to unpack it",
            hint=f"set `instance.volume_gb` to {needed} or more, or leave it out",
        )
    return given


def hourly(machine: float | None, volume: int) -> float | None:
    """Return the price of an hour of machine, volume and public address together."""
    if machine is None:
        return None
    return machine + storage_hour(volume) + IPV4_HOUR


def storage_hour(volume: int) -> float:
    """Return the price of an hour of the volume alone, which a stopped machine still costs."""
    return volume * GP3_GB_MONTH / HOURS_A_MONTH


def lease_hours(config: Config, price_hour: float | None) -> float:
    """Return the lease in hours: the given hours, or what the given money buys, if less.

    What money buys holds the rescue window too, so that bringing the weights home is paid for.
    """
    hours = LEASE_HOURS if config.lease.hours is None else config.lease.hours
    if config.lease.cost is not None and price_hour:
        hours = min(hours, config.lease.cost / price_hour - rescue_hours(config, price_hour))
    return hours


def rescue_hours(config: Config, price_hour: float | None) -> float:
    """Return how long one boot after the lease may last at most, in hours, to bring the weights home.

    Two hours; of little money an eighth of what it buys, and never less than a quarter of
    an hour while that leaves as much for the lease.
    """
    if config.lease.cost is None or not price_hour:
        return RESCUE_HOURS
    bought = config.lease.cost / price_hour
    return min(RESCUE_HOURS, max(0.25, bought / 8), bought / 2)


def _dearest(config: Config, offers: tuple[Offer, ...], volume: int) -> float | None:
    """Return what the dearest offer's lease and rescue come to; None when a price is missing."""
    prices = [hourly(offer.price_hour, volume) for offer in offers]
    known = [
        price * (lease_hours(config, price) + rescue_hours(config, price))
        for price in prices
        if price is not None
    ]
    return max(known) if known and len(known) == len(prices) else None


def _actions(wanted: Wanted, offer: Offer | None, volume: int) -> tuple[Action, ...]:
    alive = [machine for machine in wanted.observed.machines if machine.alive]
    if any(machine.state in ("running", "pending") for machine in alive):
        return ()
    if alive:
        machine = alive[-1]
        return (
            Action("start", f"start {machine.id}", "it is stopped, with your files on its disk", machine.id),
        )
    kind = offer.type if offer else wanted.config.instance.type[0]
    market = offer.market if offer else "on-demand"
    actions = [
        Action("key-pair", "import an SSH key made here", "the private half never leaves this computer"),
    ]
    if wanted.config.instance.security_group is None:
        source = f"{wanted.survey.ingress}/32" if wanted.survey.ingress else "your address"
        actions.append(
            Action("security-group", f"create a security group that admits {source} to SSH", "nobody else")
        )
    actions.append(
        Action(
            "launch",
            f"launch one {kind} ({market}) with {volume} GB encrypted gp3",
            "the training runs on it",
        )
    )
    return tuple(actions)


def _notes(config: Config, survey: Survey, price: float | None) -> tuple[str, ...]:
    notes = [f"not known: {item}" for item in survey.missing]
    kept = affordable(config, survey.offers)
    notes += [
        f"{offer.type} ({offer.market}) is left out: without its price `lease.cost` cannot be kept"
        for offer in survey.offers
        if offer not in kept
    ]
    if config.lease.cost is not None and price is None:
        notes.append("`lease.cost` cannot be kept without a price; `lease.hours` is")
    return tuple(notes)
