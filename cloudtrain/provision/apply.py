"""Making a plan true, each change announced in the journal before it is asked for.

Killed at any instant, the same command again converges: an attempt that was
announced and not answered is asked again with its own token and its own bytes, so
it can only ever mean one machine.
"""

from __future__ import annotations

import json

from cloudtrain.errors import RefusedError
from cloudtrain.events import Note
from cloudtrain.journal.folder import RunFolder, write_durably
from cloudtrain.journal.log import launched_machines, open_attempt, unended_machines
from cloudtrain.models.machine import Machine, SshTarget
from cloudtrain.models.plan import Observation, Plan
from cloudtrain.providers.base import Access, AccessSpec
from cloudtrain.provision import hosts
from cloudtrain.provision.inside import way_to
from cloudtrain.provision.launch import Applying, Launching, confirm, launch, resolve_open_attempt
from cloudtrain.ssh import keys

RUNNING_S = 600
"""How long a launched machine may take to run."""


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
    if plan.empty:
        return _there_already(applying, observed)
    with folder.changing():
        since = _launched_since(applying)
        if since is not None:
            return since
        starts = [action.resource for action in plan.actions if action.kind == "start"]
        if starts:
            folder.journal.append("starting", machine=starts[0])
            applying.provider.start(starts[0])
            folder.journal.append("start", machine=starts[0])
            return starts[0]
        if applying.provider.name == hosts.OWN:
            return _take_host(plan, applying)
        replayed = open_attempt(folder.journal.rows()) is not None
        user, host = ensure_keys(folder, fresh=not replayed)
        with applying.timeline.stage("access", "key pair and security group") as stage:
            access = prepare_access(applying, user.public)
            stage.outcome = ", ".join(access.created) or "was there already"
        with applying.timeline.stage("launch", plan.offer.type if plan.offer else "") as stage:
            machine = resolve_open_attempt(folder, applying.provider)
            machine = machine or launch(Launching(plan, applying, access, user, host))
            where = f" in {machine.zone}" if machine.zone else ""
            stage.outcome = f"{machine.id}, {machine.type} {machine.market}{where}"
        return machine.id


def _there_already(applying: Applying, observed: Observation) -> str:
    """Return the machine that runs, and learn from its attempt what the lost answer did not tell."""
    folder = applying.folder
    running = [machine.id for machine in observed.machines if machine.state in ("running", "pending")]
    chosen, others = running[-1], running[:-1]
    attempt = open_attempt(folder.journal.rows())
    if attempt is not None and chosen not in launched_machines(folder.journal.rows()):
        with folder.changing():
            confirm(folder, attempt, chosen)
    if others:
        applying.timeline.reporter.emit(
            Note(
                f"more machines of this run are running: {', '.join(others)}",
                level="warning",
                hint="`cloudtrain down` ends them all",
            )
        )
    return chosen


def _take_host(plan: Plan, applying: Applying) -> str:
    """Take a host of the user's own: it has keys already, and no access to prepare."""
    with applying.timeline.stage("take host", "host key, login, what is there") as stage:
        machine = resolve_open_attempt(applying.folder, applying.provider)
        machine = machine or hosts.take(plan, applying)
        stage.outcome = machine.id
    return machine.id


def _launched_since(applying: Applying) -> str | None:
    """Return the machine that another command launched between our plan and our lock, if one did.

    Raises `RefusedError` when another command ended the run meanwhile: a launch into
    it would be a machine that nobody knows of.
    """
    folder = applying.folder
    if folder.record().ended is not None:
        raise RefusedError(
            f"run `{folder.path.name}` was ended by another command meanwhile",
            hint="nothing was launched; run `cloudtrain up` again for a new run",
        )
    unended = unended_machines(folder.journal.rows())
    since = [name for name in unended if name not in applying.known]
    return since[-1] if since else None


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


def ensure_keys(folder: RunFolder, *, fresh: bool) -> tuple[keys.KeyPair, keys.KeyPair]:
    """Make the user key once and the first-boot host key of the next machine, and pin that.

    The host key is pinned before the machine exists: it is known before first boot.
    Without `fresh` a machine may have been launched with the one that is stored: it stays.
    """
    user = ensure_user_key(folder)
    if fresh or not folder.host_key.exists():
        host = keys.generate(f"host-{folder.path.name}")
        write_durably(folder.host_key, json.dumps({"public": host.public, "private": host.private}).encode())
        folder.update(tagged_key=None, rotation=None)
    stored = json.loads(folder.host_key.read_text())
    host = keys.KeyPair(stored["public"], stored["private"])
    keys.pin(folder.known_hosts, folder.path.name, (host.public,))
    return user, host


def ensure_user_key(folder: RunFolder) -> keys.KeyPair:
    """Make the run's user key, once."""
    if not folder.key.exists():
        user = keys.generate(f"cloudtrain-{folder.path.name}")
        write_durably(folder.path / "key.pub", user.public.encode())
        keys.write_private(folder.key, user.private)
    return keys.KeyPair((folder.path / "key.pub").read_text(), folder.key.read_text())


def target_of(machine: Machine, applying: Applying) -> SshTarget:
    """Return the way to a machine, and remember it in the run folder."""
    provider, folder = applying.provider, applying.folder
    way = way_to(machine.address) if machine.address and machine.login is None else None
    folder.update(
        proxy_jump=way.proxy_jump if way else None,
        proxy_command=way.proxy_command if way else None,
        machine=machine.id,
        address=machine.address,
        parked=False,
        ingress=applying.survey.ingress,
        port=provider.ssh_port,
        user=provider.ssh_user or applying.survey.image.user,
    )
    folder.admit(machine.login)
    return folder.target()
