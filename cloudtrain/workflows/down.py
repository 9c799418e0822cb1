"""`down`: bring the checkpoints home, prove them, end everything, prove that too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cloudtrain import training
from cloudtrain.errors import CloudtrainError, RefusedError
from cloudtrain.events import Note, Reporter, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import launched_machines
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Observation, Receipt
from cloudtrain.models.training import Artifact
from cloudtrain.providers.base import Provider
from cloudtrain.provision.end import find_everything, prove_nothing_left, receipt, terminate_all
from cloudtrain.ssh.remote import Remote, connect_when_ready
from cloudtrain.workflows.context import layout_on
from cloudtrain.workflows.fetch import fetch_all_sessions


@dataclass(frozen=True, slots=True)
class Down:
    """What came home, what it cost, and that nothing is left."""

    run: str
    artifacts: tuple[Artifact, ...]
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What `down` is told. `stop_training` ends a running session; `discard` fetches nothing."""

    stop_training: bool = False
    discard: bool = False


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
        observed = find_everything(folder, provider)
    artifacts = _bring_home(folder, config, provider, observed, reporter, timeline, ending)
    spent = receipt(folder, observed)
    with folder.changing():
        terminate_all(observed, folder, provider, timeline)
        with timeline.stage("verify", "nothing is left") as stage:
            left = prove_nothing_left(folder, provider)
            stage.outcome = "0 left"
        folder.journal.append("ended")
        folder.update(ended=datetime.now(UTC).isoformat(), cost=spent.cost, address=None)
        folder.forget_keys()
    return Down(folder.path.name, artifacts, Receipt(spent.hours, spent.cost, spent.currency, left.leftovers))


def _bring_home(
    folder: RunFolder,
    config: Config,
    provider: Provider,
    observed: Observation,
    reporter: Reporter,
    timeline: Timeline,
    ending: Ending,
) -> tuple[Artifact, ...]:
    alive = [machine for machine in observed.machines if machine.alive]
    if not alive or folder.record().address is None:
        reporter.emit(_why_nothing(folder, alive=bool(alive)))
        return ()
    if ending.discard and ending.stop_training:
        return ()
    machine = alive[-1]
    if machine.state in ("stopped", "stopping"):
        if ending.discard:
            return ()
        with timeline.stage("start", f"{machine.id}, to bring its checkpoints home"):
            provider.start(machine.id)
    try:
        with timeline.stage("connect", machine.id):
            running = provider.wait_running(machine.id, 600)
            folder.update(address=running.address)
            remote = connect_when_ready(folder.target(), deadline_s=120)
    except CloudtrainError as error:
        if ending.discard:
            return ()
        raise RefusedError(
            f"its checkpoints cannot be brought home: {error.message}",
            hint="try again when it can be reached, or give them up with `cloudtrain down --discard`",
        ) from error
    with remote:
        return _fetch_and_prove(remote, folder, config, reporter, timeline, ending)


def _why_nothing(folder: RunFolder, *, alive: bool) -> Note:
    """Say why nothing can be brought home; silence would look like success."""
    if alive or not launched_machines(folder.journal.rows()):
        return Note("no machine of this run was ever reached: there is no checkpoint to bring home")
    return Note(
        f"the machine is gone already; what came home before is in `{folder.artifacts}`", level="warning"
    )


def _fetch_and_prove(
    remote: Remote,
    folder: RunFolder,
    config: Config,
    reporter: Reporter,
    timeline: Timeline,
    ending: Ending,
) -> tuple[Artifact, ...]:
    layout = layout_on(remote, folder)
    for session in training.sessions(remote, layout):
        if session.state == "running":
            if not ending.stop_training:
                raise RefusedError(
                    f"session {session.number:03d} is still training",
                    hint="`cloudtrain down --stop-training` ends it first, `cloudtrain logs -f` follows it",
                )
            with timeline.stage("stop training", f"session {session.number:03d}"):
                training.stop(remote, layout, session)
    if ending.discard:
        return ()
    try:
        fetched = fetch_all_sessions(remote, folder, config, timeline)
    except CloudtrainError as error:
        raise RefusedError(
            f"its checkpoints are not proven at home: {error.message}",
            hint="run `cloudtrain down` again, or give them up with `cloudtrain down --discard`",
        ) from error
    artifacts = tuple(artifact for one in fetched for artifact in one.artifacts)
    if not any(one.checkpoints for one in fetched):
        reporter.emit(Note("no checkpoint was ever written on this machine"))
    return artifacts
