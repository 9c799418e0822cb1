"""`run`: up, wait, fetch, down. It may be stopped and started again at any point."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cloudtrain import training
from cloudtrain.errors import CloudtrainError, ConnectError, GoneError, RefusedError
from cloudtrain.events import Note, Output, Progress
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.training import Artifact, TrainingStatus
from cloudtrain.ssh.remote import Remote
from cloudtrain.workflows.context import (
    Context,
    check_open,
    connect_run,
    layout_on,
    own_run,
    telling_what_runs,
)
from cloudtrain.workflows.down import Down, Ending, down
from cloudtrain.workflows.fetch import fetch_over
from cloudtrain.workflows.up import up

LOOK_S = 2.0
"""Seconds between two looks at a training; one look is one small round trip."""
PATIENCE_S = 900.0
"""How long a machine may be out of reach before `run` gives up waiting (never the machine)."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How the training ended and what came home."""

    run: str
    exit_code: int
    artifacts: tuple[Artifact, ...]
    down: Down | None


def run(context: Context, *, keep_on_failure: bool, sleep: Callable[[float], None] = time.sleep) -> Ran:
    """Train to the end, bring everything home, leave nothing. The exit code is the training's."""
    begun = up(context)
    folder = own_run(context)
    if begun.differs and begun.session.state != "running":
        raise RefusedError(
            f"session {begun.session.number:03d} has ended, and here differs since: {', '.join(begun.differs)}",
            hint="`cloudtrain train` trains with it; `cloudtrain down` brings home what is there and ends it",
        )
    with telling_what_runs(folder, context.reporter, context.provider):
        status = wait(context, folder, sleep=sleep)
        code = _exit_code(status)
        with connect_run(folder) as remote:
            if code != 0:
                _show_tail(context, remote, status)
            fetched = fetch_over(remote, folder, context.config, context.timeline)
        if code != 0 and keep_on_failure:
            context.reporter.emit(
                Note(
                    f"the training failed with {code}; the machine is kept",
                    level="warning",
                    hint="`cloudtrain down` ends it",
                )
            )
            return Ran(folder.path.name, code, fetched.artifacts, None)
        ended = down(folder, context.config, context.provider(), context.reporter, context.timeline, Ending())
    return Ran(folder.path.name, code, fetched.artifacts, ended)


def wait(context: Context, folder: RunFolder, *, sleep: Callable[[float], None]) -> TrainingStatus:
    """Wait for the newest session's end, showing how far it is. A lost line is found again."""
    lost_since: float | None = None
    with context.timeline.stage("train") as stage:
        while True:
            check_open(folder)
            try:
                with connect_run(folder) as remote:
                    lost_since = None
                    status = _follow(context, remote, folder, sleep)
                    stage.outcome = _said(status)
                    return status
            except ConnectError as error:
                now = time.monotonic()
                lost_since = now if lost_since is None else lost_since
                _check_reachable(context, folder)
                if now - lost_since > PATIENCE_S:
                    raise
                context.reporter.emit(Note(f"{error.message}; trying again", level="warning"))
                sleep(5.0)


def _check_reachable(context: Context, folder: RunFolder) -> None:
    """Raise `GoneError` when waiting is of no use: the run was ended, or its machine has."""
    check_open(folder)
    record = folder.record()
    try:
        observed = context.provider().observe(folder.run())
    except CloudtrainError:
        return  # nobody can tell now; the machine may answer before the cloud does
    machine = next((one for one in observed.machines if one.id == record.machine), None)
    if machine is None or machine.state in ("running", "pending"):
        return
    if machine.alive and machine.market == "spot":
        context.reporter.emit(Note(f"{machine.id} is {machine.state}: EC2 starts it again when it has room"))
        return
    raise GoneError(
        f"{machine.id} is {machine.state}: nothing trains any more",
        hint="`cloudtrain up` starts it again"
        if machine.alive
        else f"what came home is in `{folder.artifacts}`; `cloudtrain up` launches another",
    )


def _follow(
    context: Context, remote: Remote, folder: RunFolder, sleep: Callable[[float], None]
) -> TrainingStatus:
    layout = layout_on(remote, folder)
    shown: tuple[int | None, str] = (None, "")
    pace = Pace()
    while True:
        status = training.status(remote, layout, context.config)
        if status is None:
            raise ConnectError("the machine has no session", hint="`cloudtrain train` starts one")
        eta = pace.left(status, time.time())
        if (status.epoch, status.last_line) != shown:
            shown = (status.epoch, status.last_line)
            context.reporter.emit(_progress(status, eta))
        if status.session.state != "running":
            return status
        sleep(LOOK_S)


@dataclass(slots=True)
class Pace:
    """How fast epochs pass, judged at the moment one ends, so that the estimate only falls in between."""

    epoch: int = 0
    at: float = 0.0

    def left(self, status: TrainingStatus, now: float) -> float | None:
        """Return the seconds until the last epoch ends; None while nobody can know. `now` is a Unix time."""
        if not status.epoch or not status.epochs or status.session.started is None:
            return None
        if status.epoch != self.epoch:
            self.epoch, self.at = status.epoch, now
        each = (self.at - status.session.started.timestamp()) / status.epoch
        return max(0.0, each * (status.epochs - status.epoch) - (now - self.at))


def _progress(status: TrainingStatus, eta: float | None) -> Progress:
    done, total = float(status.epoch or 0), float(status.epochs or 0)
    detail = ", ".join(f"{short(name)} {value:.3f}" for name, value in headline(status.metrics).items())
    return Progress("train", done, total, "epochs", eta_s=eta, detail=detail or status.last_line[-60:])


def headline(metrics: dict[str, float]) -> dict[str, float]:
    """Pick the metrics that say most in a line: mAP where there is one."""
    chosen = {name: value for name, value in metrics.items() if "map" in name.lower()}
    return chosen or dict(list(metrics.items())[:2])


def short(name: str) -> str:
    """Shorten `metrics/mAP50(B)` to `mAP50`."""
    return name.rsplit("/", 1)[-1].removesuffix("(B)")


def _said(status: TrainingStatus) -> str:
    epochs = f", epoch {status.epoch} of {status.epochs}" if status.epoch else ""
    return f"{status.session.state}{epochs}"


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
