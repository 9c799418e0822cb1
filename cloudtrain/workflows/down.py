"""`down`: bring the checkpoints home, prove them, end everything, prove that too."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cloudtrain import training
from cloudtrain.errors import CapacityError, CloudtrainError, RefusedError
from cloudtrain.events import Note, Reporter, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import launched_machines
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Observation, Receipt
from cloudtrain.models.training import Artifact
from cloudtrain.providers.base import Provider
from cloudtrain.provision.end import find_everything, prove_nothing_left, receipt, terminate_all
from cloudtrain.provision.wait import Patience
from cloudtrain.ssh.remote import Remote, connect_when_ready
from cloudtrain.workflows.context import check_account, connect_run, layout_on
from cloudtrain.workflows.fetch import Fetched, fetch_all_sessions, unproven_checkpoints
from cloudtrain.workflows.wake import wake

OTHERS_S = 600.0
"""For how long another cloudtrain's change of the run is waited for: EC2 takes minutes to end a machine."""


@dataclass(frozen=True, slots=True)
class Down:
    """What came home, what it cost, and that nothing is left."""

    run: str
    artifacts: tuple[Artifact, ...]
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What `down` is told.

    `stop_training` ends a running session, `discard` fetches nothing, and `patience`
    waits for the capacity to start a parked machine with.
    """

    stop_training: bool = False
    discard: bool = False
    patience: Patience = field(default_factory=Patience)


def down(
    folder: RunFolder,
    config: Config,
    provider: Provider,
    reporter: Reporter,
    timeline: Timeline,
    ending: Ending,
) -> Down:
    """Fetch, prove, terminate, release, prove. Twice is harmless.

    Raises `RefusedError` while training runs, and when the newest checkpoints
    cannot be brought home; nothing is ended then.
    """
    with timeline.stage("look", "what exists of this run"):
        check_account(folder, provider)
        observed = find_everything(folder, provider)
    job = _Job(folder, config, provider, reporter, timeline, ending)
    with _reached(job, observed) as remote:
        artifacts = _fetch_and_prove(job, remote) if remote is not None else ()
        ended_by = _read_guard(job, remote) if remote is not None else ""
        spent = replace(receipt(folder, observed), ended_by=ended_by)
        with _alone(job) as waited:
            if remote is not None and not (waited and _gone_meanwhile(job)):
                _check_nothing_new(job, remote)
            terminate_all(observed, folder, provider, timeline)
            with timeline.stage("verify", "nothing is left") as stage:
                left = prove_nothing_left(folder, provider)
                stage.outcome = "0 left"
            folder.journal.append("ended")
            folder.update(ended=datetime.now(UTC).isoformat(), cost=spent.cost, address=None)
            folder.forget_keys()
    return Down(folder.path.name, artifacts, replace(spent, leftovers=left.leftovers))


@dataclass(frozen=True, slots=True)
class _Job:
    folder: RunFolder
    config: Config
    provider: Provider
    reporter: Reporter
    timeline: Timeline
    ending: Ending


@contextmanager
def _alone(job: _Job) -> Generator[bool]:
    """Hold the run's lock, once another cloudtrain has done its change; say whether there was one.

    It may be `down` in another window: what it has ended needs no second try by hand.
    """
    with ExitStack() as held:
        waited = False
        try:
            held.enter_context(job.folder.changing())
        except RefusedError as busy:
            waited = True
            with job.timeline.stage("wait", busy.message):
                held.enter_context(job.folder.changing(patience_s=OTHERS_S))
        yield waited


@contextmanager
def _reached(job: _Job, observed: Observation) -> Generator[Remote | None]:
    """Connect to the run's machine, started for it where it is parked; None where there is no need.

    Raises `RefusedError` when it cannot be reached and its checkpoints are not given up.
    """
    folder, ending = job.folder, job.ending
    alive = [machine for machine in observed.machines if machine.alive]
    if folder.record().bake:
        yield None
        return
    if not alive or folder.record().address is None:
        job.reporter.emit(_why_nothing(folder, alive=bool(alive)))
        yield None
        return
    machine = alive[-1]
    parked = machine.state in ("stopped", "stopping")
    if ending.discard and (ending.stop_training or parked):
        yield None
        return
    remote = None
    try:
        remote = _connect(job, machine.id, parked=parked)
    except CloudtrainError as error:
        if _gone_meanwhile(job):
            job.reporter.emit(_why_nothing(folder, alive=False))
        elif not ending.discard:
            again = "try again when it can be reached"
            if isinstance(error, CapacityError):
                again = "`cloudtrain down --wait-for-capacity HOURS` keeps asking"
            raise RefusedError(
                f"its checkpoints cannot be brought home: {error.message}",
                hint=f"{again}, or give them up with `cloudtrain down --discard`",
            ) from error
    try:
        yield remote
    finally:
        if remote is not None:
            remote.close()


def _gone_meanwhile(job: _Job) -> bool:
    """Whether the machine has ended since the look, by itself or by `down` in another window.

    Where the cloud does not answer either, the first failure is what there is to tell.
    """
    try:
        return not any(machine.alive for machine in find_everything(job.folder, job.provider).machines)
    except CloudtrainError:
        return False


def _connect(job: _Job, machine_id: str, *, parked: bool) -> Remote:
    folder, provider = job.folder, job.provider
    if parked:
        with job.timeline.stage("start", f"{machine_id}, to bring its checkpoints home"):
            wake(folder, provider, machine_id, job.ending.patience, job.reporter)
    with job.timeline.stage("connect", machine_id):
        running = provider.wait_running(machine_id, 600)
        folder.update(address=running.address, parked=False)
        if not parked:
            return connect_run(folder)  # it answers at once, or this computer's address has changed
        if folder.readmit is not None:
            folder.readmit()
        return connect_when_ready(folder.target(), deadline_s=120)


def _read_guard(job: _Job, remote: Remote) -> str:
    """Take the guard's own receipt into the journal, and return why it had powered the machine off."""
    folder = job.folder
    said = training.guard_status(remote, layout_on(remote, folder))
    if said is None:
        return ""
    off = [[begin.isoformat(), end.isoformat()] for begin, end in said.away]
    folder.journal.append("away", machine=folder.record().machine, off=off)
    return said.receipt.why if said.receipt else ""


def _why_nothing(folder: RunFolder, *, alive: bool) -> Note:
    """Say why nothing can be brought home; silence would look like success."""
    if alive or not launched_machines(folder.journal.rows()):
        return Note("no machine of this run was ever reached: there is no checkpoint to bring home")
    return Note(
        f"the machine is gone already; what came home before is in `{folder.artifacts}`", level="warning"
    )


def _fetch_and_prove(job: _Job, remote: Remote) -> tuple[Artifact, ...]:
    layout = layout_on(remote, job.folder)
    found = training.sessions(remote, layout)
    running = [one for one in found if one.state == "running"]
    if running and not job.ending.stop_training:
        raise RefusedError(
            f"session {running[-1].number:03d} is still training",
            hint="`cloudtrain down --stop-training` ends it first, `cloudtrain logs -f` follows it",
        )
    if running and not job.ending.discard:
        _fetch(job, remote)  # a training is not ended for a machine that nothing can be fetched from
    if job.ending.stop_training:  # or the guard goes on with it while we fetch
        running += [one for one in found if one.state == "interrupted"][-1:]
    for session in running:
        with job.timeline.stage("stop training", f"session {session.number:03d}"):
            training.stop(remote, layout, session)
    if job.ending.discard:
        return ()
    fetched = _fetch(job, remote)
    _check_proven(job, remote)
    if not any(one.checkpoints for one in fetched):
        _check_none_written(job, remote, fetched)
        job.reporter.emit(Note("no checkpoint was ever written on this machine"))
    return tuple(artifact for one in fetched for artifact in one.artifacts)


def _check_none_written(job: _Job, remote: Remote, fetched: tuple[Fetched, ...]) -> None:
    """Raise `RefusedError` when the machine has secured something that was declared, and nothing such came home."""
    outputs = [f"{one.folder}/outputs/" for one in fetched]
    if any(str(artifact.path).startswith(tuple(outputs)) for one in fetched for artifact in one.artifacts):
        return
    status = training.status(remote, layout_on(remote, job.folder), job.config)
    if status is not None and status.secured is not None:
        raise RefusedError(
            f"session {status.session.number:03d} wrote a checkpoint, and none came home: "
            f"`{status.checkpoint or status.secured.path}`",
            hint="`cloudtrain exec` or `ssh` lets you look and save it; `cloudtrain down --discard` gives it up",
        )


def _fetch(job: _Job, remote: Remote) -> tuple[Fetched, ...]:
    try:
        return fetch_all_sessions(remote, job.folder, job.config, job.timeline)
    except CloudtrainError as error:
        raise RefusedError(
            f"its checkpoints are not proven at home: {error.message}",
            hint="run `cloudtrain down` again, or give them up with `cloudtrain down --discard`",
        ) from error


def _check_proven(job: _Job, remote: Remote) -> None:
    """Raise `RefusedError` while the machine holds a newer checkpoint than what is proven at home."""
    unproven = unproven_checkpoints(remote, job.folder, job.config)
    if unproven:
        raise RefusedError(
            f"the newest checkpoint is not whole on the machine: {', '.join(unproven)}",
            hint=f"what is whole is in `{job.folder.artifacts}`; `cloudtrain down --discard` gives up the rest",
        )


def _check_nothing_new(job: _Job, remote: Remote) -> None:
    """Raise `RefusedError` when another command began a session after the look.

    Called with the run's lock held, which starting a session takes too.
    """
    found = training.sessions(remote, layout_on(remote, job.folder))
    running = [one for one in found if one.state == "running"]
    unproven = () if job.ending.discard else unproven_checkpoints(remote, job.folder, job.config)
    if running or unproven:
        raise RefusedError(
            "another command has just started a training on this machine",
            hint="run `cloudtrain down` again when it has ended; `--stop-training` ends it",
        )
