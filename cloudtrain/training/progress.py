"""How a training is doing, read from the files that the trainer itself writes.

ultralytics counts epochs from 1, yolov5 from 0 and pads its column names with
spaces; both write a row before the checkpoint it belongs to, so a row may be torn,
and may come twice after a resume: the last whole one counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.models.training import (
    GuardNotice,
    GuardReceipt,
    GuardStatus,
    Secured,
    Session,
    TrainingStatus,
    Trouble,
)
from cloudtrain.ssh.remote import Remote
from cloudtrain.training.diagnosis import diagnose
from cloudtrain.training.lines import last_state
from cloudtrain.training.scripts import script
from cloudtrain.training.session import parse_session

NOT_METRICS = ("epoch", "time")
GUARD_S = 180.0
"""How old what a guard wrote last may be: one that is there writes every minute."""


def status(remote: Remote, layout: Layout, config: Config) -> TrainingStatus | None:
    """Return how the newest session is doing, None when there is none; one round trip."""
    answer = remote.script(script("session-status.sh"), layout.root, *config.train.patterns).stdout
    if not answer.strip():
        return None
    return parse_status(answer, layout, config)


def guard_status(remote: Remote, layout: Layout) -> GuardStatus | None:
    """Return what the machine's guard says, None where there is none; one round trip."""
    return _guard(_read(remote.script(script("guard-status.sh"), layout.root).stdout))


def parse_results(csv_text: str, kind: str) -> tuple[int | None, dict[str, float]]:
    """Return the finished epochs, counted from 1, and the last row's metrics by their own names.

    `kind` is `train.kind`; a results.csv that a script writes is taken to count from 1.
    Rows with fewer cells than the header are being written, and do not count.
    """
    lines = [line for line in csv_text.splitlines() if line.strip()]
    if not lines:
        return None, {}
    names = [name.strip() for name in lines[0].split(",")]
    cells = next((row for row in _rows(lines[1:]) if len(row) == len(names)), None)
    if cells is None:
        return None, {}
    row = {
        name: number for name, cell in zip(names, cells, strict=True) if (number := _number(cell)) is not None
    }
    epoch = row.get("epoch")
    counted = None if epoch is None or not math.isfinite(epoch) else int(epoch) + (kind == "yolov5")
    return counted, {name: value for name, value in row.items() if name not in NOT_METRICS}


def parse_status(answer: str, layout: Layout, config: Config) -> TrainingStatus:
    """Read what session-status.sh prints."""
    said = _read(answer)
    session, kind = parse_session(said.session, layout)
    epoch, metrics = parse_results("\n".join(said.rows), kind)
    path, age = None, None
    if said.checkpoint:
        modified, path = said.checkpoint.split("\t", 1)
        age = max(0.0, said.now - float(modified))
    return TrainingStatus(
        session=session,
        epoch=epoch,
        epochs=_whole(said.epochs) or _whole(str(config.train.args.get("epochs", ""))),
        metrics=metrics,
        checkpoint=path,
        checkpoint_age_s=age,
        last_line=last_state(said.log),
        secured=_secured(said),
        trouble=_trouble(said, session, config),
        guard=_guard(said),
        begun=_time(float(said.begun)) if said.begun else None,
    )


def _trouble(said: _Said, session: Session, config: Config) -> Trouble | None:
    if session.how != "failed":
        return None
    container = config.runtime == "docker"
    return diagnose(said.log, session.exit_code, reason=said.reason, container=container)


@dataclass(slots=True)
class _Said:
    session: str = ""
    now: float = 0.0
    checkpoint: str = ""
    epochs: str = ""
    rows: list[str] = field(default_factory=list[str])
    log: str = ""
    secured: str = ""
    reason: str = ""
    guard: str = ""
    notice: str = ""
    receipt: str = ""
    begun: str = ""
    written: str = ""


def _read(answer: str) -> _Said:
    head, _, log = answer.partition("\nlog\t\n")
    said = _Said(log=log)
    for line in head.splitlines():
        name, _, value = line.partition("\t")
        if name == "session":
            said.session = value
        elif name == "now":
            said.now = float(value)
        elif name == "checkpoint":
            said.checkpoint = value
        elif name == "epochs":
            said.epochs = value
        elif name in ("secured", "reason", "guard", "notice", "receipt", "begun", "written"):
            setattr(said, name, value)
        elif name == "row":
            said.rows.append(value)
    return said


def _secured(said: _Said) -> Secured | None:
    known = _object(said.secured)
    if not known:
        return None
    return Secured(
        path=str(known.get("path", "")),
        epoch=known.get("epoch"),
        age_s=max(0.0, said.now - float(known.get("at", said.now))),
        metrics=known.get("metrics") or {},
    )


def _guard(said: _Said) -> GuardStatus | None:
    known = _object(said.guard)
    if not known:
        return None
    notices: list[dict[str, Any]] = _object(said.notice).get("notices", [])
    receipt = _object(said.receipt)
    here, booted = _here(said)
    return GuardStatus(
        deadline=_time(known["deadline"]) if known.get("deadline") else None,
        idle_for_s=float(known.get("idle_for_s", 0)),
        idle_after_s=float(known.get("idle_after_s", 0)),
        ending=str(known.get("ending", "")),
        rescue=bool(known.get("rescue")),
        cannot=tuple(known.get("cannot", ())),
        notices=tuple(GuardNotice(str(one["kind"]), str(one["text"]), _time(one["at"])) for one in notices),
        active=str(known.get("active", "")),
        away=tuple((_time(one[0]), _time(one[1])) for one in known.get("away", ())),
        receipt=GuardReceipt(str(receipt["why"]), _time(receipt["at"])) if receipt else None,
        here=here,
        booted=booted,
    )


def _here(said: _Said) -> tuple[bool, datetime | None]:
    """Tell by the machine's own clock whether its guard is there, and when the machine began."""
    wrote, _, began = said.written.partition(" ")
    if not (wrote.isdigit() and began.isdigit()):
        return True, None
    fresh = said.now - float(wrote) < GUARD_S and int(wrote) >= int(began) - 1
    return fresh, _time(float(began))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _object(text: str) -> dict[str, Any]:
    """Read a JSON object; one that is being written, or none, is empty."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _rows(lines: list[str]) -> Iterator[list[str]]:
    """Yield the rows' cells, the last first."""
    for line in reversed(lines):
        yield [cell.strip() for cell in line.split(",")]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None
