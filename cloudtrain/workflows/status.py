"""How it goes: the machine as the cloud sees it, the training as its files tell it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from cloudtrain.errors import CloudtrainError, ConnectError, HostKeyMismatch
from cloudtrain.journal.folder import RunFolder, RunRecord
from cloudtrain.journal.log import open_attempt
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Observation, Receipt
from cloudtrain.models.training import GuardNotice, TrainingStatus
from cloudtrain.providers.base import Provider


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """How long the machine may live, in seconds from now, and what the guard says of it.

    `at_risk_s` is the work that would be lost now: the seconds since a checkpoint was
    secured last, or since the session began; None while nothing trains. `away` says why a
    machine that should run does not.
    """

    until: datetime | None
    left_s: float | None
    idle_for_s: float | None
    idle_after_s: float | None
    active: str
    ending: str
    rescue: bool
    at_risk_s: float | None
    away: str
    notices: tuple[GuardNotice, ...]
    own: bool = False
    """A machine of the user's own, on which the lease ends the training alone."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Everything `status` shows. What could not be asked is None and named in `missing`."""

    run: str
    record: RunRecord
    machine: Machine | None
    training: TrainingStatus | None
    receipt: Receipt | None
    lease: LeaseStatus
    missing: tuple[str, ...]


def status(folder: RunFolder, config: Config, provider: Callable[[], Provider]) -> RunStatus:
    """Ask cloud and machine at the same time; neither waits for, or fails with, the other."""
    from cloudtrain.provision.end import receipt

    with ThreadPoolExecutor(2, thread_name_prefix="status") as pool:
        cloud = pool.submit(lambda: _asked(folder, provider()))
        session = pool.submit(training_status, folder, config)
        missing: list[str] = []
        observed = None
        try:
            observed = cloud.result()
        except CloudtrainError as error:
            missing.append(f"the cloud does not tell: {error.message}")
        missing += _more(folder, observed)
        found = None
        try:
            found = session.result()
        except HostKeyMismatch:
            if not _elsewhere(observed):
                raise
        except ConnectError as error:
            if not _elsewhere(observed):
                missing.append(f"the machine was not reached: {error.message}")
    machines = [machine for machine in observed.machines if machine.alive] if observed else []
    machines = machines or (list(observed.machines) if observed else [])
    record, machine = folder.record(), machines[-1] if machines else None
    return RunStatus(
        run=folder.path.name,
        record=record,
        machine=machine,
        training=found,
        receipt=receipt(folder, observed) if observed else None,
        lease=lease_status(record, machine, found, datetime.now(UTC)),
        missing=tuple(missing),
    )


def lease_status(
    record: RunRecord, machine: Machine | None, found: TrainingStatus | None, now: datetime
) -> LeaseStatus:
    """Put together what record, cloud and guard say of the lease. Pure."""
    guard = found.guard if found else None
    until = datetime.fromisoformat(record.deadline) if record.deadline else None
    if guard is not None and guard.deadline is not None:
        until = guard.deadline
    return LeaseStatus(
        until=until,
        left_s=(until - now).total_seconds() if until else None,
        idle_for_s=guard.idle_for_s if guard else None,
        idle_after_s=guard.idle_after_s if guard else None,
        active=guard.active if guard else "",
        ending=guard.ending if guard else "",
        rescue=guard.rescue if guard else False,
        at_risk_s=at_risk(found, now) if found else None,
        away=_away(record, machine),
        notices=guard.notices[-3:] if guard else (),
        own=record.own,
    )


def at_risk(found: TrainingStatus, now: datetime) -> float | None:
    """Return the work that would be lost now, in seconds; None while nothing trains."""
    if found.session.state != "running":
        return None
    if found.secured is not None:
        return found.secured.age_s
    began = found.session.started
    return max(0.0, (now - began).total_seconds()) if began else None


def _away(record: RunRecord, machine: Machine | None) -> str:
    if machine is None or machine.state not in ("stopping", "stopped") or record.parked:
        return ""
    if machine.market == "spot":
        return "EC2 took it back, or it powered itself off; EC2 gives it back when it has room"
    return "it powered itself off, at the end of its lease or idle"


def _asked(folder: RunFolder, provider: Provider) -> Observation:
    from cloudtrain.workflows.context import check_account

    with ThreadPoolExecutor(1, thread_name_prefix="account") as pool:
        same = pool.submit(check_account, folder, provider)
        observed = provider.observe(folder.run())
        same.result()
    return observed


def _more(folder: RunFolder, observed: Observation | None) -> list[str]:
    """Name what may cost money beside the one machine that is shown."""
    running = [m.id for m in observed.machines if m.alive][:-1] if observed else []
    said = [f"{name} of this run exists too: `cloudtrain down` ends them all" for name in running]
    if open_attempt(folder.journal.rows()) is not None:
        said.append(
            "a launch was asked for and its answer did not come: "
            "`cloudtrain up` finds its machine, `cloudtrain down` ends it"
        )
    return said


def _elsewhere(observed: Observation | None) -> bool:
    """Whether the address that was last seen can belong to somebody else by now."""
    return observed is not None and all(m.state not in ("running", "pending") for m in observed.machines)


def training_status(folder: RunFolder, config: Config) -> TrainingStatus | None:
    """Ask the machine alone; None when it has no session, or never was reached."""
    from cloudtrain import training
    from cloudtrain.workflows.context import connect_run, layout_on

    record = folder.record()
    if record.address is None:
        return None
    if record.parked and not (folder.refind is not None and folder.refind()):
        return None
    with connect_run(folder) as remote:
        return training.status(remote, layout_on(remote, folder), config)
