"""Planning and taking a host of the user's own: nothing is created, and little can be lost.

There is no volume, no address and no account behind it; the lease is the owner's to keep,
so the plan says what that means instead of promising a power-off.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cloudtrain.errors import CapacityError, CloudtrainError, GoneError, LostAnswerError
from cloudtrain.journal.log import Attempt
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Action, LaunchSpec, Observation, Offer, Plan, Survey

if TYPE_CHECKING:
    from cloudtrain.provision.launch import Applying

OWN = "ssh"
"""The provider whose machines are the user's own."""
NO_LEASE = "nothing ends a training on a machine of your own but you, unless `lease.hours` is given"
LEASE = "the training is ended then; a machine of your own is not powered off"


def plan_host(config: Config, survey: Survey, observed: Observation, now: datetime) -> Plan:
    """Return what `up` will do on hosts of the user's own."""
    offer = survey.offers[0]
    taken = [machine for machine in observed.machines if machine.alive]
    price = taken[-1].price_hour if taken else offer.price_hour
    hours = lease_hours(config, price)
    return Plan(
        actions=() if taken else _actions(survey.offers),
        offer=offer,
        image=survey.image,
        region=survey.region,
        volume_gb=0,
        price_hour=price,
        lease_hours=hours,
        lease_cost=None if price is None or hours is None else price * hours,
        deadline=None if hours is None else now + timedelta(hours=hours),
        notes=(NO_LEASE if hours is None else LEASE,),
    )


def lease_hours(config: Config, price_hour: float | None) -> float | None:
    """Return the hours after which a training there is ended: as given, or what the money buys; None for never."""
    given = [config.lease.hours] if config.lease.hours is not None else []
    if config.lease.cost is not None and price_hour:
        given.append(config.lease.cost / price_hour)
    return min(given, default=None)


def deadline_of(config: Config, price_hour: float | None, now: datetime) -> str | None:
    """Return when a training there is to end, as the record keeps it; None for never."""
    hours = lease_hours(config, price_hour)
    return None if hours is None else (now + timedelta(hours=hours)).isoformat()


def _actions(offers: tuple[Offer, ...]) -> tuple[Action, ...]:
    what = f"use {', else '.join(offer.type for offer in offers)}"
    return (Action("launch", what, "all of ours goes to ~/cloudtrain there; the machine stays as it is"),)


def take(plan: Plan, applying: Applying) -> Machine:
    """Take the first host that can be had, each attempt announced first.

    Raises `CapacityError` naming every one that does not answer, and at once whatever
    is not a matter of trying another: a wrong host key, a refused login.
    """
    refusals: list[str] = []
    for offer in applying.survey.offers:
        try:
            return _take(plan, applying, offer)
        except CapacityError as error:
            refusals.append(f"\n  {offer.type}: {error.message}")
    raise CapacityError(
        f"none of your hosts can be used:{''.join(refusals)}",
        hint="`ssh` to it by hand shows more; `--wait-for-capacity HOURS` keeps trying",
    )


def _take(plan: Plan, applying: Applying, offer: Offer) -> Machine:
    folder = applying.folder
    attempt = Attempt(
        token=secrets.token_hex(16),
        type=offer.type,
        zone=None,
        market=offer.market,
        price_hour=offer.price_hour,
        currency=offer.currency,
        deadline=deadline_of(applying.config, offer.price_hour, applying.now()),
    )
    folder.journal.append("attempt", **asdict(attempt))
    try:
        machine = applying.provider.launch(_spec(plan, applying, offer), attempt.token, folder)
    except LostAnswerError:
        raise
    except GoneError:
        folder.journal.append("gone", token=attempt.token)
        raise
    except CloudtrainError as error:
        code = getattr(error, "code", "")
        folder.journal.append("refused", token=attempt.token, code=code, reason=error.message)
        raise
    folder.journal.append("launched", token=attempt.token, machine=machine.id)
    folder.update(
        machine=machine.id,
        address=None,
        price_hour=offer.price_hour,
        currency=offer.currency,
        deadline=attempt.deadline,
    )
    return machine


def _spec(plan: Plan, applying: Applying, offer: Offer) -> LaunchSpec:
    assert plan.image is not None, "a plan that launches has an image"
    return LaunchSpec(
        type=offer.type,
        market=offer.market,
        zone=None,
        image=plan.image,
        volume_gb=0,
        user_data="",
        key_name="",
        security_group="",
        subnet=None,
        tags=applying.run_tags,
        after_power_off="stop",
    )
