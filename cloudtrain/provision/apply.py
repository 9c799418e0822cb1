"""Making a plan true, each change announced in the journal before it is asked for.

Killed at any instant, the same command again converges: an attempt that was
announced and not answered is asked again with its own token and its own bytes, so
it can only ever mean one machine.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from cloudtrain.errors import CapacityError, CloudError, CloudtrainError, GoneError, LostAnswerError
from cloudtrain.events import Timeline
from cloudtrain.journal.folder import RunFolder, write_durably
from cloudtrain.journal.log import Attempt, open_attempt, unended_machines
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Machine, SshTarget
from cloudtrain.models.plan import LaunchSpec, Observation, Offer, Plan, Survey
from cloudtrain.providers.base import Access, AccessSpec, Provider
from cloudtrain.provision.plan import hourly, rank
from cloudtrain.provision.userdata import user_data
from cloudtrain.ssh import keys

RUNNING_S = 600
"""How long a launched machine may take to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applying:
    """What applying needs beside the plan."""

    provider: Provider
    folder: RunFolder
    config: Config
    survey: Survey
    timeline: Timeline
    run_tags: dict[str, str]


def apply_up(plan: Plan, applying: Applying, observed: Observation) -> Machine:
    """Launch or start what the plan says and return the running machine.

    The run's lock is held for the changes and never for the waiting. Raises what
    the provider raises; whatever was made by then is in the journal and carries the
    run's tags.
    """
    machine_id = _change(plan, applying, observed)
    with applying.timeline.stage("boot", machine_id) as stage:
        machine = applying.provider.wait_running(machine_id, RUNNING_S)
        stage.outcome = machine.address or ""
    return machine


def _change(plan: Plan, applying: Applying, observed: Observation) -> str:
    folder = applying.folder
    starts = [action.resource for action in plan.actions if action.kind == "start"]
    planned_for = {machine.id for machine in observed.machines}
    if plan.empty:
        return next(m.id for m in reversed(observed.machines) if m.state in ("running", "pending"))
    with folder.changing():
        since = [name for name in unended_machines(folder.journal.rows()) if name not in planned_for]
        if since:  # another command launched it between our plan and our lock
            return since[-1]
        if starts:
            folder.journal.append("start", machine=starts[0])
            applying.provider.start(starts[0])
            return starts[0]
        user, host = ensure_keys(folder)
        with applying.timeline.stage("access", "key pair and security group") as stage:
            access = prepare_access(applying, user.public)
            stage.outcome = ", ".join(access.created) or "was there already"
        with applying.timeline.stage("launch", plan.offer.type if plan.offer else "") as stage:
            machine = resolve_open_attempt(folder, applying.provider)
            machine = machine or _launch(plan, applying, access, user, host)
            stage.outcome = machine.id
        return machine.id


def prepare_access(applying: Applying, public_key: str) -> Access:
    """Make or find key pair and security group, announced first."""
    folder = applying.folder
    folder.journal.append("access")
    return applying.provider.prepare_access(
        AccessSpec(
            run=folder.run(),
            public_key=public_key,
            ingress=applying.survey.ingress,
            port=applying.provider.ssh_port,
            security_group=applying.config.instance.security_group,
            subnet=applying.config.instance.subnet,
        )
    )


def ensure_keys(folder: RunFolder) -> tuple[keys.KeyPair, keys.KeyPair]:
    """Make the user key and the first-boot host key once, and pin the latter.

    The host key is pinned before the machine exists: it is known before first boot.
    """
    if not folder.key.exists():
        user = keys.generate(f"cloudtrain-{folder.path.name}")
        write_durably(folder.path / "key.pub", user.public.encode())
        keys.write_private(folder.key, user.private)
    user = keys.KeyPair((folder.path / "key.pub").read_text(), folder.key.read_text())
    if not folder.host_key.exists():
        host = keys.generate(f"host-{folder.path.name}")
        write_durably(folder.host_key, json.dumps({"public": host.public, "private": host.private}).encode())
    stored = json.loads(folder.host_key.read_text())
    host = keys.KeyPair(stored["public"], stored["private"])
    if not folder.known_hosts.exists():
        keys.pin(folder.known_hosts, folder.path.name, (host.public,))
    return user, host


def target_of(machine: Machine, applying: Applying) -> SshTarget:
    """Return the way to a machine, and remember it in the run folder."""
    provider, folder = applying.provider, applying.folder
    folder.update(
        machine=machine.id,
        address=machine.address,
        port=provider.ssh_port,
        user=provider.ssh_user or applying.survey.image.user,
    )
    return folder.target()


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


def _launch(
    plan: Plan, applying: Applying, access: Access, user: keys.KeyPair, host: keys.KeyPair
) -> Machine:
    """Try offer after offer and zone after zone; every refusal is kept with its reason."""
    folder = applying.folder
    refusals: list[str] = []
    last: CloudtrainError | None = None
    for offer, zone in _attempts(applying.survey.offers):
        spec = _spec(
            plan,
            applying,
            access,
            offer,
            zone,
            user_data(
                host_key=host,
                user_public=user.public,
                deadline=plan.deadline,
                lease=applying.config.lease,
            ),
        )
        attempt = Attempt(secrets.token_hex(16), offer.type, zone, offer.market)
        folder.journal.append("attempt", **asdict(attempt))
        try:
            machine = _ask(folder, applying.provider, spec, attempt)
        except CapacityError as error:
            refusals.append(
                f"{offer.type} {offer.market} {zone or 'any zone'}: {error.code or error.message}"
            )
            last = error
            continue
        if machine is not None:
            _remember(plan, folder, offer)
            return machine
    reasons = "\n  ".join(refusals)
    raise CapacityError(
        f"no machine could be had in {plan.region}:\n  {reasons}",
        hint=last.hint if last else "name another type in `instance.type`",
    )


def _attempts(offers: tuple[Offer, ...]) -> Iterator[tuple[Offer, str | None]]:
    """Yield each offer without a zone first (AWS picks one with stock), then zone by zone."""
    for offer in rank(offers):
        yield offer, None
        for zone in offer.zones:
            yield offer, zone


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
    folder.journal.append("launched", token=attempt.token, machine=machine.id)
    folder.update(machine=machine.id)
    return machine


def _remember(plan: Plan, folder: RunFolder, offer: Offer) -> None:
    folder.update(
        price_hour=hourly(offer.price_hour, plan.volume_gb),
        currency=offer.currency,
        deadline=plan.deadline.isoformat() if plan.deadline else None,
    )


def _spec(
    plan: Plan, applying: Applying, access: Access, offer: Offer, zone: str | None, data: str
) -> LaunchSpec:
    deadline: datetime | None = plan.deadline
    tags = dict(applying.run_tags)
    if deadline is not None:
        tags["cloudtrain-deadline"] = str(int(deadline.timestamp()))
    assert plan.image is not None, "a plan that launches has an image"
    return LaunchSpec(
        type=offer.type,
        market=offer.market,
        zone=zone,
        image=plan.image,
        volume_gb=plan.volume_gb,
        user_data=data,
        key_name=access.key_name,
        security_group=access.security_group,
        subnet=applying.config.instance.subnet,
        tags=tags,
        after_power_off="terminate" if applying.config.lease.after_training == "terminate" else "stop",
    )
