"""`run`: up, wait, fetch, down. It may be stopped and started again at any point."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cloudtrain import training
from cloudtrain.errors import RefusedError
from cloudtrain.events import Note, Output
from cloudtrain.journal.log import brought_home
from cloudtrain.models.training import Artifact, TrainingStatus
from cloudtrain.provision.end import find_everything
from cloudtrain.ssh.remote import Remote
from cloudtrain.workflows.context import (
    Context,
    check_account,
    find_run,
    own_run,
    telling_what_runs,
)
from cloudtrain.workflows.down import Down, Ending, down
from cloudtrain.workflows.fetch import Fetched, fetch_over
from cloudtrain.workflows.up import up
from cloudtrain.workflows.waiting import wait


@dataclass(frozen=True, slots=True)
class Ran:
    """How the training ended and what came home."""

    run: str
    exit_code: int
    artifacts: tuple[Artifact, ...]
    down: Down | None


def run(context: Context, *, keep_on_failure: bool, sleep: Callable[[float], None] = time.sleep) -> Ran:
    """Train to the end, bring everything home, leave nothing. The exit code is the training's.

    A training that has ended, whose result is at home and whose machine is gone is not begun
    anew: an earlier call died while it ended the machine, or the machine ended itself.
    """
    ended = _ended_before(context)
    if ended is not None:
        return ended
    begun = up(context)
    folder = own_run(context)
    if begun.differs and begun.session.state != "running":
        raise RefusedError(
            f"session {begun.session.number:03d} has ended, and here differs since: {', '.join(begun.differs)}",
            hint="`cloudtrain train` trains with it; `cloudtrain down` brings home what is there and ends it",
        )
    with telling_what_runs(folder, context.reporter, context.provider):
        came: list[Fetched] = []

        def bring_home(remote: Remote, status: TrainingStatus) -> None:
            if _exit_code(status) != 0:
                _show_tail(context, remote, status)
            came.append(fetch_over(remote, folder, context.config, context.timeline))

        status = wait(context, folder, bring_home, sleep=sleep)
        code, artifacts = _exit_code(status), came[-1].artifacts
        kept = _why_kept(status, keep_on_failure=keep_on_failure)
        if kept:
            context.reporter.emit(Note(kept, level="warning", hint="`cloudtrain down` ends it"))
            return Ran(folder.path.name, code, artifacts, None)
        ended = down(folder, context.config, context.provider(), context.reporter, context.timeline, Ending())
    return Ran(folder.path.name, code, artifacts, ended)


def _why_kept(status: TrainingStatus, *, keep_on_failure: bool) -> str:
    """Say why the machine is not ended, nothing where it is.

    Whoever ends a session by hand says what becomes of its machine; the end of a lease says nothing of it.
    """
    code = _exit_code(status)
    if status.session.stopped and not (status.guard and status.guard.ending):
        return "the training was stopped by hand: its machine is left to whoever did that"
    return f"the training failed with {code}; the machine is kept" if code != 0 and keep_on_failure else ""


def _ended_before(context: Context) -> Ran | None:
    """End what is left of a run whose result is at home and whose machine is gone; None where there is none."""
    folder = find_run(context.base, None)
    known = brought_home(folder.journal.rows()) if folder is not None and not context.resume else None
    if folder is None or known is None:
        return None
    provider = context.provider()
    check_account(folder, provider)
    if any(machine.alive for machine in find_everything(folder, provider).machines):
        return None
    session, code = known
    context.reporter.emit(
        Note(
            f"session {session:03d} has ended with {code} and is at home, and its machine is gone: ending the run",
            hint="`cloudtrain run` once more trains anew",
        )
    )
    ended = down(folder, context.config, provider, context.reporter, context.timeline, Ending())
    return Ran(folder.path.name, code, (), ended)


def _exit_code(status: TrainingStatus) -> int:
    code = status.session.exit_code
    if code is not None:
        return code
    return 1


def _show_tail(context: Context, remote: Remote, status: TrainingStatus) -> None:
    """Show the log's end: why it failed is nearly always there."""
    training.follow(
        remote,
        status.session,
        lambda line: context.reporter.emit(Output(line, source="train.log")),
        lines=20,
        until_end=False,
    )
