"""The daily loop: edit, and train again on the machine that is there."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain import training
from cloudtrain.config import dump
from cloudtrain.errors import RefusedError, UsageError
from cloudtrain.events import Waterfall
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import last_session
from cloudtrain.models.training import PushReport, Session
from cloudtrain.ssh.remote import Remote
from cloudtrain.workflows.checks import check_project
from cloudtrain.workflows.context import (
    Context,
    check_open,
    connect_run,
    layout_on,
    own_run,
    telling_what_runs,
)
from cloudtrain.workflows.settle import settle, start_session


@dataclass(frozen=True, slots=True)
class Trained:
    """The session that was started, and what was pushed for it."""

    run: str
    session: Session
    pushes: tuple[PushReport, ...]
    waterfall: Waterfall


def train(context: Context, *, replace: bool, weights: str | None) -> Trained:
    """Push what changed and start a new session in a new run folder.

    Raises `RefusedError` while one runs, unless `replace`; `weights` (`best` or
    `last`) starts from the newest session's result on the machine.
    """
    if weights is not None and context.config.train.kind == "script":
        raise UsageError(
            "`--weights` starts a YOLO training from a checkpoint; a script is not told of it",
            hint="name the file in `train.command`; what it wrote is on the machine, in its project folder",
        )
    source = check_project(context.config, context.base)
    folder = own_run(context)
    with telling_what_runs(folder, context.reporter, context.provider), connect_run(folder) as remote:
        layout = layout_on(remote, folder)
        before = training.sessions(remote, layout)
        running = [session for session in before if session.state == "running"]
        if running and not replace:
            raise RefusedError(
                f"session {running[-1].number:03d} is running",
                hint="wait for it, or `cloudtrain train --replace` ends it first",
            )
        model = _weights(remote, before, weights)
        with folder.settling():
            settled = settle(context, remote, folder, source)
        with folder.changing():
            check_open(folder)
            for session in running:
                with context.timeline.stage("stop training", f"session {session.number:03d}"):
                    training.stop(remote, layout, session)
            folder.save_config(dump(context.config))
            newest = max((session.number for session in before), default=0)
            number = max(newest, last_session(folder.journal.rows())) + 1
            session = start_session(context, remote, folder, settled, number=number, model=model)
    return Trained(folder.path.name, session, settled.pushes, context.timeline.waterfall())


def stop_training(folder: RunFolder) -> Session:
    """End the running session and keep the machine. Raises `UsageError` when none runs."""
    with connect_run(folder) as remote:
        layout = layout_on(remote, folder)
        running = [s for s in training.sessions(remote, layout) if s.state == "running"]
        if not running:
            raise UsageError("no training is running", hint="`cloudtrain status` shows the last one")
        return training.stop(remote, layout, running[-1])


def _weights(remote: Remote, before: tuple[Session, ...], weights: str | None) -> str | None:
    """Return the path of the newest session's checkpoint. Raises `UsageError` when there is none."""
    if weights is None:
        return None
    if weights not in ("best", "last"):
        raise UsageError(f"`--weights` is best or last, not `{weights}`")
    for session in reversed(before):
        path = f"{session.run_dir}/weights/{weights}.pt"
        if remote.run(f"test -s '{path}'", check=False).ok:
            return path
    raise UsageError(
        f"no session on the machine has written {weights}.pt yet",
        hint="`cloudtrain status` shows what there is; leave `--weights` out to start from `train.model`",
    )
