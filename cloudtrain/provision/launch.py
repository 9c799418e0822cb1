"""Asking for one machine until there is one: attempt after attempt, each announced first."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from cloudtrain.errors import CapacityError, CloudError, GoneError, LostAnswerError, QuotaError
from cloudtrain.events import Note, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import Attempt, open_attempt, utc_now
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import LaunchSpec, Offer, Plan, Survey
from cloudtrain.models.tags import DEADLINE, HOST_KEY, PRICE, USER, price_tag
from cloudtrain.providers.base import Access, Provider
from cloudtrain.provision.plan import affordable, hourly, lease_hours, rank, rescue_hours
from cloudtrain.provision.userdata import user_data
from cloudtrain.ssh import keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Applying:
    """What applying needs beside the plan."""

    provider: Provider
    folder: RunFolder
    config: Config
    survey: Survey
    timeline: Timeline
    run_tags: dict[str, str]
    known: frozenset[str] = frozenset()
    """The machines that the journal named before the cloud was asked for this plan."""
    now: Callable[[], datetime] = utc_now


@dataclass(frozen=True, slots=True)
class Launching:
    """What every attempt of one launch shares."""

    plan: Plan
    applying: Applying
    access: Access
    user: keys.KeyPair
    host: keys.KeyPair


def resolve_open_attempt(folder: RunFolder, provider: Provider) -> Machine | None:
    """Ask again for an attempt whose answer was lost, and return its machine.

    The stored request is sent unchanged; None when it never was stored, when it
    was refused, or when its machine existed and is gone.
    """
    attempt = open_attempt(folder.journal.rows())
    if attempt is None:
        return None
    stored = folder.load(attempt.token)
    if stored is None:
        folder.journal.append("refused", token=attempt.token, reason="never asked")
        return None
    return _ask(folder, provider, None, attempt)


def launch(launching: Launching) -> Machine:
    """Try offer after offer and zone after zone; every refusal is kept with its reason.

    A zone without stock leads to the next zone; an account's limit leads to the next
    type or market at once, since it holds in every zone. Raises `CapacityError` or
    `QuotaError` naming all of them, and whatever else a launch raises at once.
    """
    refusals: list[Refusal] = []
    for offer in rank(affordable(launching.applying.config, launching.applying.survey.offers)):
        for zone in _zones(launching.applying, offer):
            try:
                machine = _attempt(launching, offer, zone)
            except (CapacityError, QuotaError) as error:
                refusals.append(Refusal(offer, zone, error))
                launching.applying.timeline.reporter.emit(Note(f"refused: {refusals[-1]}"))
                if isinstance(error, QuotaError):
                    break
                continue
            if machine is not None:
                return machine
    raise refused(launching.plan.region, refusals)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One launch attempt that the cloud said no to."""

    offer: Offer
    zone: str | None
    error: CloudError

    def __str__(self) -> str:
        where = self.zone or "any zone"
        reason = self.error.code or self.error.message
        return f"{self.offer.type} {self.offer.market}, {where}: {reason}"


def refused(region: str, refusals: list[Refusal]) -> CloudError:
    """Return the one error that says every refusal; the account's limit only if that was all."""
    errors = [refusal.error for refusal in refusals]
    of_quota = bool(errors) and all(isinstance(error, QuotaError) for error in errors)
    kind = QuotaError if of_quota else CapacityError
    wait = "" if of_quota else "; `--wait-for-capacity HOURS` keeps asking"
    hint = f"{errors[-1].hint}{wait}" if errors else "name another type in `instance.type`"
    reasons = "".join(f"\n  {refusal}" for refusal in refusals)
    return kind(f"no machine could be had in {region}:{reasons}", hint=hint)


def _zones(applying: Applying, offer: Offer) -> tuple[str | None, ...]:
    """Ask without a zone first: AWS picks one with stock. A subnet of one's own fixes the zone."""
    return (None,) if applying.config.instance.subnet else (None, *offer.zones)


def _attempt(launching: Launching, offer: Offer, zone: str | None) -> Machine | None:
    """Make one attempt with a token of its own; None when its machine existed and is gone.

    The lease begins with the attempt: what was waited for capacity is not part of it.
    Its hours are those that the attempt's own price leaves, not the planned offer's.
    """
    plan, applying = launching.plan, launching.applying
    price = hourly(offer.price_hour, plan.volume_gb)
    deadline = applying.now() + timedelta(hours=lease_hours(applying.config, price))
    attempt = Attempt(
        token=secrets.token_hex(16),
        type=offer.type,
        zone=zone,
        market=offer.market,
        price_hour=price,
        currency=offer.currency,
        volume_gb=plan.volume_gb,
        deadline=deadline.isoformat(),
    )
    spec = _spec(launching, offer, zone, deadline)
    applying.folder.journal.append("attempt", **asdict(attempt))
    return _ask(applying.folder, applying.provider, spec, attempt)


def _ask(folder: RunFolder, provider: Provider, spec: LaunchSpec | None, attempt: Attempt) -> Machine | None:
    """Make one attempt and journal its answer; an unanswered one stays open."""
    try:
        machine = provider.launch(spec, attempt.token, folder)
    except GoneError:
        folder.journal.append("gone", token=attempt.token)
        return None
    except LostAnswerError:
        raise
    except CloudError as error:
        folder.journal.append("refused", token=attempt.token, code=error.code, reason=error.message)
        raise
    confirm(folder, attempt, machine.id)
    return machine


def confirm(folder: RunFolder, attempt: Attempt, machine_id: str) -> None:
    """Remember which machine an attempt made, and what its user data and tags say of price and lease."""
    folder.journal.append("launched", token=attempt.token, machine=machine_id)
    folder.update(
        machine=machine_id,
        address=None,
        parked=False,
        price_hour=attempt.price_hour,
        currency=attempt.currency,
        volume_gb=attempt.volume_gb,
        deadline=attempt.deadline,
    )


def _spec(launching: Launching, offer: Offer, zone: str | None, deadline: datetime) -> LaunchSpec:
    plan, config, host = launching.plan, launching.applying.config, launching.host
    assert plan.image is not None, "a plan that launches has an image"
    price = hourly(offer.price_hour, plan.volume_gb)
    return LaunchSpec(
        type=offer.type,
        market=offer.market,
        zone=zone,
        image=plan.image,
        volume_gb=plan.volume_gb,
        user_data=user_data(
            host_key=host,
            user_public=launching.user.public,
            deadline=deadline,
            lease=config.lease,
            rescue_hours=rescue_hours(config, price),
        ),
        key_name=launching.access.key_name,
        security_group=launching.access.security_group,
        subnet=config.instance.subnet,
        tags={
            **launching.applying.run_tags,
            DEADLINE: str(int(deadline.timestamp())),
            HOST_KEY: " ".join(host.public.split()[:2]),
            USER: launching.applying.provider.ssh_user or plan.image.user,
            PRICE: price_tag(price, offer.currency, plan.volume_gb),
        },
        public_address={"auto": None, "public": True, "private": False}[config.instance.address],
        after_power_off="terminate" if config.lease.after_training == "terminate" else "stop",
    )
