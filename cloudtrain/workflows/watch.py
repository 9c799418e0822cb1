"""`watch`: looks at a training again and again, over one connection, and leaves it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from cloudtrain.errors import AuthenticationFailed, ConnectError, HostKeyMismatch, UsageError
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import parked_seconds
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Observation
from cloudtrain.models.training import TrainingStatus
from cloudtrain.models.watching import Look
from cloudtrain.provision.end import receipt
from cloudtrain.ssh.remote import Remote
from cloudtrain.training.looking import Watcher, eta_s
from cloudtrain.workflows.context import connect_run, layout_on
from cloudtrain.workflows.outlook import Outlook

EVERY_S = 3.0
"""Seconds between two looks."""


def watch(
    folder: RunFolder,
    config: Config,
    *,
    show: Callable[[Look], None],
    leave: Callable[[float], bool],
    every_s: float = EVERY_S,
) -> Look:
    """Show a look every `every_s` seconds until the session ends for good or `leave` says so.

    `leave` waits so many seconds, and returns whether to end. A line that breaks is said,
    and connected again; the training does not notice either. Raises `UsageError` where there
    is no session to look at, and what a first connection raises.
    """
    remote = connect_run(folder)
    last: Look | None = None
    outlook = Outlook()
    try:
        watcher = Watcher(remote, layout_on(remote, folder), config)
        while True:
            try:
                last = _look(folder, watcher)
            except (HostKeyMismatch, AuthenticationFailed):
                raise
            except ConnectError as error:
                if last is None:
                    raise
                last = replace(last, at=datetime.now(UTC), lost=error.message)
            show(last)
            if (not last.lost and outlook.over(last.training)) or leave(every_s):
                return last
            if last.lost:
                remote.close()
                remote = _again(folder, remote)
                watcher = Watcher(remote, watcher.layout, config)
    finally:
        remote.close()


def _again(folder: RunFolder, remote: Remote) -> Remote:
    """Connect anew; where nobody answers the old connection stays, and the next look says so."""
    try:
        return connect_run(folder)
    except (HostKeyMismatch, AuthenticationFailed):
        raise
    except ConnectError:
        return remote


def _look(folder: RunFolder, watcher: Watcher) -> Look:
    status, readings, curves = watcher.look()
    if status is None:
        raise UsageError("no training was ever started on this machine", hint="`cloudtrain train` starts one")
    now, record = datetime.now(UTC), folder.record()
    return Look(
        run=folder.path.name,
        at=now,
        training=status,
        readings=readings,
        curves=curves,
        eta_s=eta_s(status, curves),
        cost=_cost(folder, now),
        price_hour=record.price_hour,
        currency=record.currency,
        lease_left_s=_lease_left(status, record.deadline, now),
        at_risk_s=_at_risk(status, now),
    )


def _cost(folder: RunFolder, now: datetime) -> float | None:
    """Return what the run has cost at most, from what this computer wrote down; no cloud is asked."""
    spent = receipt(folder, Observation((), None, None), now)
    record = folder.record()
    if spent.cost is None or record.price_hour is None or record.machine is None:
        return spent.cost
    parked = parked_seconds(folder.journal.rows(), record.machine, now) / 3600
    return max(0.0, spent.cost - parked * record.price_hour)


def _lease_left(status: TrainingStatus, deadline: str | None, now: datetime) -> float | None:
    """Return the seconds of the lease: by the machine's own guard, else as it was launched."""
    until = status.guard.deadline if status.guard and status.guard.deadline else None
    if until is None and deadline:
        until = datetime.fromisoformat(deadline)
    return (until - now).total_seconds() if until else None


def _at_risk(status: TrainingStatus, now: datetime) -> float | None:
    if status.session.state != "running":
        return None
    if status.secured is not None:
        return status.secured.age_s
    started = status.session.started
    return (now - started).total_seconds() if started else None
