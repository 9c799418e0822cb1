"""Waiting for a training's end: over lost lines and reclaims, and fetching what is secured meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cloudtrain import training
from cloudtrain.errors import (
    AuthenticationFailed,
    CapacityError,
    CloudtrainError,
    ConnectError,
    GoneError,
    HostKeyMismatch,
    RefusedError,
)
from cloudtrain.events import Note, Progress, Silent, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.training import GuardNotice, TrainingStatus
from cloudtrain.ssh.remote import Remote
from cloudtrain.workflows.context import Context, check_open, connect_run, layout_on, over
from cloudtrain.workflows.fetch import fetch_over
from cloudtrain.workflows.outlook import Outlook
from cloudtrain.workflows.resume import best_copy, what_is_lost

LOOK_S = 2.0
"""Seconds between two looks at a training; one look is one small round trip."""
JUST_NOW = timedelta(minutes=2)
"""How old a notice of the guard's may be to be news: as old as an interruption's."""
FETCH_S = 15.0
"""How often a newly secured checkpoint is fetched at most."""
PATIENCE_S = 900.0
"""How long a machine may be out of reach before `run` gives up waiting (never the machine)."""


def wait(
    context: Context,
    folder: RunFolder,
    at_end: Callable[[Remote, TrainingStatus], object],
    *,
    sleep: Callable[[float], None],
) -> TrainingStatus:
    """Wait for the newest session's end, showing how far it is and fetching what it secures.

    `at_end` has the connection then, and is called again where that breaks. A lost line is
    found again, and a reclaimed spot machine waited for as long as `spot.patience` says.
    Raises `CapacityError` with what going on elsewhere would lose when that is over.
    """
    watched = Watched(context, folder, sleep)
    with ExitStack() as training_stage:
        stage = training_stage.enter_context(context.timeline.stage("train"))
        while True:
            check_open(folder)
            try:
                with connect_run(folder) as remote:
                    watched.reached()
                    status = watched.follow(remote)
                    stage.outcome = _said(status)
                    training_stage.close()
                    at_end(remote, status)
                    return status
            except ConnectError as error:
                watched.lost(error)
                sleep(5.0)


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


@dataclass(slots=True)
class Watched:
    """A training that is followed over lost lines and reclaims: what was last seen of it."""

    context: Context
    folder: RunFolder
    sleep: Callable[[float], None]
    since: float | None = None
    reclaimed: bool = False
    seen: TrainingStatus | None = None
    seen_at: float = 0.0
    told: str = ""
    home: str = ""
    fetched_at: float = -FETCH_S
    at_stake: float | None = None
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    notices: set[GuardNotice] = field(default_factory=set[GuardNotice])
    pace: Pace = field(default_factory=Pace)
    outlook: Outlook = field(default_factory=Outlook)

    def reached(self) -> None:
        """Take note that the machine answers again, and say so after a reclaim."""
        if self.reclaimed and self.since is not None:
            waited = time.monotonic() - self.since
            self.context.reporter.emit(Note(f"the machine is back after {waited:.0f} s"))
        self.since = self.outlook.since = None
        self.told = ""

    def lost(self, error: ConnectError) -> None:
        """Say once why it does not answer. Raises when waiting any longer is of no use."""
        now = time.monotonic()
        self.since = now if self.since is None else self.since
        away = _check_reachable(self.context, self.folder)
        if away and not self.reclaimed:
            self._reclaim()
        if isinstance(error, AuthenticationFailed | HostKeyMismatch) and not away:
            raise error  # it is the machine's own answer, or somebody else's
        patience = self.context.config.spot.patience * 60 if away else PATIENCE_S
        if now - self.since > patience:
            raise self._impatient(patience) if away else error
        text = away or f"{error.message}; trying again"
        if text != self.told:
            self.told = text
            self.context.reporter.emit(Note(text, level="warning"))

    def _reclaim(self) -> None:
        self.reclaimed = True
        secured = self.seen.secured if self.seen else None
        epoch = secured.epoch if secured else None
        session = {"session": self.seen.session.number} if self.seen else {}
        self.folder.journal.append("reclaimed", machine=self.folder.record().machine, epoch=epoch, **session)
        self.at_stake = self._at_risk()
        if self.at_stake is not None:
            text = f"at most {self.at_stake:.0f} s of work are lost: all before that is secured on its disk"
            self.context.reporter.emit(Note(text))

    def _at_risk(self) -> float | None:
        """Return the work since the last secured checkpoint, in seconds, when it was last seen."""
        if self.seen is None or self.seen.secured is None:
            return None
        return self.seen.secured.age_s + LOOK_S

    def _impatient(self, patience: float) -> CapacityError:
        try:
            chosen = best_copy(self.context, self.folder)
            kept = f"{chosen} is at home; {what_is_lost(self.folder, chosen)}"
        except CloudtrainError as error:
            kept = error.message
        return CapacityError(
            f"EC2 has not given the machine back for {patience / 60:.1f} minutes; {kept}",
            hint="`cloudtrain up --resume` goes on elsewhere from there; `cloudtrain run` waits again",
        )

    def follow(self, remote: Remote) -> TrainingStatus:
        """Show how it goes until the session ends. Raises `RefusedError` for one that nobody goes on with."""
        layout = layout_on(remote, self.folder)
        shown: tuple[int | None, str] = (None, "")
        while True:
            status = training.status(remote, layout, self.context.config)
            if status is None:
                raise ConnectError("the machine has no session", hint="`cloudtrain train` starts one")
            self._tell(status)
            eta = self.pace.left(status, time.time())
            if (status.epoch, status.last_line) != shown:
                shown = (status.epoch, status.last_line)
                self.context.reporter.emit(_progress(status, eta))
            if self.outlook.over(status):
                self._check_guarded(status)
                return status
            self._bring_home(remote, status)
            self.sleep(LOOK_S)

    def _check_guarded(self, status: TrainingStatus) -> None:
        """Raise `RefusedError` where nobody goes on with it; the machine is kept, for it holds the work."""
        if self.outlook.since is not None:
            again = "" if self.context.config.train.kind == "script" else " --weights last"
            raise RefusedError(
                f"session {status.session.number:03d} was interrupted, and nothing goes on with it there: "
                "no guard runs on that machine",
                hint=f"`cloudtrain train{again}` begins another; `cloudtrain down` brings home what there is",
            )

    def _tell(self, status: TrainingStatus) -> None:
        """Pass on what the guard has said since, and what a reclaim has cost."""
        if status.guard is not None:
            for one in status.guard.notices:
                if one not in self.notices and one.at > self.begun - JUST_NOW:
                    self.notices.add(one)
                    self.context.reporter.emit(Note(one.text, level="warning"))
        if self.reclaimed and status.session.state != "interrupted":
            self.reclaimed = False
            self._tell_cost(status)
        self.seen = status

    def _tell_cost(self, status: TrainingStatus) -> None:
        """Say that it goes on, or that it did and has ended between two looks, and what the reclaim has cost."""
        running = status.session.state == "running"
        epoch = status.secured.epoch if status.secured and running else None
        where = f" after epoch {epoch}" if epoch else ""
        lost = self.at_stake
        said = f"; at most {lost:.0f} s of work were lost" if lost is not None else ""
        self.context.reporter.emit(Note(f"the training {'goes' if running else 'went'} on{where}{said}"))

    def _bring_home(self, remote: Remote, status: TrainingStatus) -> None:
        """Fetch a newly secured checkpoint, quietly, and not all the time."""
        now = time.monotonic()
        newest = status.secured.path if status.secured else ""
        if not newest or newest == self.home or now < self.fetched_at + FETCH_S:
            return
        self.fetched_at = now
        try:
            fetch_over(remote, self.folder, self.context.config, Timeline(Silent()))
        except ConnectError:
            raise
        except CloudtrainError as error:
            self.context.reporter.emit(Note(f"not fetched now: {error.message}"))
            return
        self.home = newest
        if status.secured is not None and status.secured.epoch is not None:
            self.context.reporter.emit(Note(f"epoch {status.secured.epoch} is at home"))


def _check_reachable(context: Context, folder: RunFolder) -> str:
    """Return why the machine is away for a while, nothing where it should answer.

    Raises `GoneError` when waiting is of no use: the run was ended, or its machine has.
    """
    check_open(folder)
    record = folder.record()
    try:
        observed = context.provider().observe(folder.run())
    except CloudtrainError:
        return ""  # nobody can tell now; the machine may answer before the cloud does
    machine = next((one for one in observed.machines if one.id == record.machine), None)
    if machine is None or machine.state in ("running", "pending"):
        return ""
    if machine.alive and machine.market == "spot" and not record.parked and not over(record.deadline):
        minutes = context.config.spot.patience
        return (
            f"EC2 took {machine.id} back ({machine.state}); it starts it again when it has room, "
            f"which is waited for {minutes:g} minutes"
        )
    ended = "its lease has ended" if over(record.deadline) else "it powered itself off, or was stopped"
    raise GoneError(
        f"{machine.id} is {machine.state}: {ended}, and nothing trains any more",
        hint="`cloudtrain extend --hours 2` and `cloudtrain start` go on; `cloudtrain down` brings its weights home"
        if machine.alive
        else f"what came home is in `{folder.artifacts}`; `cloudtrain up` launches another",
    )


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
    return f"{status.session.how}{epochs}"
