"""A training session, its status, and what comes home from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

SessionState = Literal["running", "finished", "failed", "interrupted"]
ArtifactKind = Literal["best", "last", "checkpoint", "results", "log", "other"]


@dataclass(frozen=True, slots=True)
class Session:
    """One training under screen. Times are UTC; paths are on the machine.

    `interrupted` means: it began, it is not running, and it left no exit code.
    """

    number: int
    screen: str
    state: SessionState
    run_dir: str
    log: str
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    stopped: bool = False
    """Whether it was asked to end, by a command or by its lease."""

    @property
    def how(self) -> str:
        """Its state in a word for people: what was ended did not fail."""
        return "stopped" if self.stopped and self.state == "failed" else self.state


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a training failed, and the setting to change."""

    kind: Literal[
        "gpu-memory", "disk", "shared-memory", "memory", "missing-file", "missing-module", "crash-loop"
    ]
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class Secured:
    """The newest checkpoint that was proven and copied aside. `age_s` is the work at risk, in seconds."""

    path: str
    epoch: int | None
    age_s: float
    metrics: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class GuardNotice:
    """Something the guard has said. `kind` as in cloudtrain/guard/guard.py."""

    kind: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class GuardReceipt:
    """Why and when the guard last powered the machine off."""

    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """What the machine's own guard says. `ending` is why it powers off, empty while it does not.

    `away` are the times in which the machine was off; `active` is what uses it beside a training.
    `here` says that it is there: it has written in this boot, and within three minutes.
    """

    deadline: datetime | None
    idle_for_s: float
    idle_after_s: float
    ending: str
    rescue: bool
    cannot: tuple[str, ...] = ()
    notices: tuple[GuardNotice, ...] = ()
    active: str = ""
    away: tuple[tuple[datetime, datetime], ...] = ()
    receipt: GuardReceipt | None = None
    here: bool = True
    booted: datetime | None = None


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """How a session is doing, read from its files in one round trip.

    `epoch` counts finished epochs, from 1; `metrics` are the last row of
    results.csv under the framework's own names; `checkpoint_age_s` is the age of
    the newest checkpoint in seconds. `guard` is None where none has said anything. `begun` is
    when its supervisor was started last.
    """

    session: Session
    epoch: int | None = None
    epochs: int | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    checkpoint: str | None = None
    checkpoint_age_s: float | None = None
    last_line: str = ""
    secured: Secured | None = None
    trouble: Trouble | None = None
    guard: GuardStatus | None = None
    begun: datetime | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file at home. `complete` says that hash and container format were proven."""

    kind: ArtifactKind
    path: Path
    remote: str
    size: int
    sha256: str
    complete: bool
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    fetched: bool = True
    """False when the proven copy was already here and nothing had to move."""
    behind: bool = False
    """Whether the machine has a newer one, which was not to be had whole."""


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push moved. `sent` 0 with `files` > 0 means nothing had changed."""

    what: Literal["project", "dataset", "model"]
    files: int
    bytes: int
    sent_files: int
    sent_bytes: int
    seconds: float
    left_out: tuple[str, ...] = ()
    verified: bool = False
    """Whether every file's hash was compared; count and bytes always are."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What happened to one step on one machine."""

    name: str
    outcome: Literal["satisfied", "changed", "failed", "refused", "pending", "skipped"]
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A web service on the machine's loopback. `token` must never be logged."""

    name: Literal["jupyter", "tensorboard"]
    port: int
    token: str = field(default="", repr=False)
