"""`stop` and `start`: a machine put aside with its disk, and taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cloudtrain import training
from cloudtrain.errors import CloudError, CloudtrainError, GoneError, RefusedError
from cloudtrain.events import Note, Reporter, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.machine import Machine
from cloudtrain.models.training import Session
from cloudtrain.providers.base import Provider
from cloudtrain.provision.hostkey import secure_host_key
from cloudtrain.provision.look import observe_settled
from cloudtrain.provision.plan import HOURS_A_MONTH, storage_hour
from cloudtrain.provision.wait import Patience
from cloudtrain.ssh.remote import connect_when_ready
from cloudtrain.workflows.context import check_account, check_open, connect_run, layout_on
from cloudtrain.workflows.wake import wake

STOPPED_S = 300.0
"""How long a machine may take to stop."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A machine that is stopped, and what its disk costs until it is ended."""

    run: str
    machine: str
    cost_hour: float
    cost_month: float
    currency: str


@dataclass(frozen=True, slots=True)
class Started:
    """A machine that runs again, and the newest session on it."""

    run: str
    machine: str
    address: str
    session: Session | None


@dataclass(frozen=True, slots=True)
class Parking:
    """What both verbs are given."""

    folder: RunFolder
    provider: Provider
    reporter: Reporter
    timeline: Timeline


def stop(parking: Parking, *, stop_training: bool, sleep: Callable[[float], None] = time.sleep) -> Parked:
    """Stop the machine and keep its disk; stopped already is success.

    Raises `RefusedError` while training runs, unless `stop_training`, and when nobody
    can tell whether it does; `GoneError` without a machine.
    """
    folder, provider = parking.folder, parking.provider
    machine = _machine(parking)
    if machine.login is not None:
        provider.stop(machine.id)  # a machine of one's own: refused before anything is ended
    if machine.state == "running":
        _end_training(parking, stop_training=stop_training)
    with parking.timeline.stage("stop", machine.id) as stage:
        with folder.changing():
            check_open(folder)
            folder.journal.append("stop", machine=machine.id)
            provider.stop(machine.id)
            folder.update(parked=True)
        wait_stopped(parking, machine.id, sleep)
        folder.journal.append("stopped", machine=machine.id)
        stage.outcome = "stopped, its disk is kept"
    record = folder.record()
    cost = storage_hour(record.volume_gb)
    return Parked(folder.path.name, machine.id, cost, cost * HOURS_A_MONTH, record.currency)


def start(parking: Parking, patience: Patience) -> Started:
    """Start the parked machine again, at a new address, known by its pinned host key.

    Raises `CapacityError` saying what waiting costs when the cloud has no room for it now.
    """
    folder, provider, timeline = parking.folder, parking.provider, parking.timeline
    machine = _machine(parking)
    with timeline.stage("start", machine.id):
        if machine.state not in ("running", "pending"):
            wake(folder, provider, machine.id, patience, parking.reporter)
        running = provider.wait_running(machine.id, 600)
    folder.update(address=running.address, parked=False)
    if folder.readmit is not None:
        folder.readmit()
    with timeline.stage("connect", running.address or "") as stage:
        remote = connect_when_ready(folder.target())
        stage.outcome = "host key verified"
    with remote:
        secure_host_key(remote, folder, provider, timeline)
        found = training.sessions(remote, layout_on(remote, folder))
    return Started(folder.path.name, machine.id, running.address or "", found[-1] if found else None)


def _machine(parking: Parking) -> Machine:
    with parking.timeline.stage("look", "what exists of this run"):
        check_account(parking.folder, parking.provider)
        observed = observe_settled(parking.folder, parking.provider)
    alive = [machine for machine in observed.machines if machine.alive]
    if not alive:
        raise GoneError(
            f"run `{parking.folder.path.name}` has no machine",
            hint="`cloudtrain up` launches one; `cloudtrain down` ends the run",
        )
    return alive[-1]


def _end_training(parking: Parking, *, stop_training: bool) -> None:
    folder = parking.folder
    if folder.record().address is None:
        return
    try:
        with connect_run(folder) as remote:
            layout = layout_on(remote, folder)
            running = [one for one in training.sessions(remote, layout) if one.state == "running"]
            if running and not stop_training:
                raise RefusedError(
                    f"session {running[-1].number:03d} is still training",
                    hint="`cloudtrain stop --stop-training` ends it first",
                )
            for session in running:
                with parking.timeline.stage("stop training", f"session {session.number:03d}"):
                    training.stop(remote, layout, session)
    except RefusedError:
        raise
    except CloudtrainError as error:
        if not stop_training:
            raise RefusedError(
                f"nobody can tell whether it still trains: {error.message}",
                hint="`cloudtrain stop --stop-training` stops it all the same; its disk is kept",
            ) from error
        parking.reporter.emit(Note(f"the training was not ended first: {error.message}", level="warning"))


def wait_stopped(parking: Parking, machine_id: str, sleep: Callable[[float], None]) -> None:
    """Return once the machine is stopped, or gone. Raises `CloudError` after `STOPPED_S`."""
    pause, waited = 0.1, 0.0
    while waited < STOPPED_S:
        observed = parking.provider.observe(parking.folder.run())
        state = next((one.state for one in observed.machines if one.id == machine_id), None)
        if state in ("stopped", "terminated", None):
            return
        sleep(pause)
        waited, pause = waited + pause, min(pause * 1.4, 5.0)
    raise CloudError(
        f"{machine_id} has not stopped after {STOPPED_S:.0f} s",
        hint="run `cloudtrain stop` again: it goes on waiting",
    )
