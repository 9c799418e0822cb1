"""The journal: JSON lines, each on the disk before the call that it announces.

It answers one question after a crash: what was asked of the cloud, and did an
answer come? It never says what exists; the cloud's tags do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

Row = dict[str, object]


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Journal:
    """One run's journal. Appending is atomic for a line, and durable before it returns."""

    path: Path
    now: Callable[[], datetime] = field(default=utc_now)

    def append(self, event: str, **values: object) -> None:
        """Write one row and fsync it. Raises `OSError` when the disk refuses."""
        row = {"at": self.now().isoformat(), "event": event, **values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, _seal(fd) + json.dumps(row).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)

    def rows(self) -> tuple[Row, ...]:
        """Return every whole row; a last line torn by a crash is not one."""
        if not self.path.exists():
            return ()
        found: list[Row] = []
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                value: object = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(cast("Row", value))
        return tuple(found)

    def last(self, event: str) -> Row | None:
        """Return the newest row of a kind, or None."""
        return next((row for row in reversed(self.rows()) if row["event"] == event), None)


def _seal(fd: int) -> bytes:
    """End a line that a crash left open, so that the next row stands on its own."""
    size = os.fstat(fd).st_size
    if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
        return b""
    return b"\n"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One launch attempt: one token for one zone, type and market."""

    token: str
    type: str
    zone: str | None
    market: str
    price_hour: float | None = None
    """What an hour of it costs, volume and address included; a replay must not forget it."""
    currency: str = "USD"
    volume_gb: int = 0
    deadline: str | None = None
    """The end of the lease that its user data enforces, ISO 8601."""


def open_attempt(rows: tuple[Row, ...]) -> Attempt | None:
    """Return the attempt that was announced and never answered, if there is one.

    It may have launched a machine: `up` replays it, `down` finds what it made.
    """
    current: Attempt | None = None
    for row in rows:
        if row["event"] == "attempt":
            current = _attempt(row)
        elif row["event"] in ("launched", "refused", "gone") and current is not None:
            current = None if row.get("token") == current.token else current
    return current


def _attempt(row: Row) -> Attempt:
    zone, price, deadline = row.get("zone"), row.get("price_hour"), row.get("deadline")
    return Attempt(
        token=str(row["token"]),
        type=str(row["type"]),
        zone=str(zone) if zone else None,
        market=str(row["market"]),
        price_hour=float(price) if isinstance(price, (int, float)) else None,
        currency=str(row.get("currency", "USD")),
        volume_gb=int(str(row.get("volume_gb", 0))),
        deadline=str(deadline) if deadline else None,
    )


def attempt_of(rows: tuple[Row, ...], machine: str) -> Attempt | None:
    """Return the attempt that made a machine; None for one that this computer did not launch."""
    token = next(
        (row.get("token") for row in rows if row["event"] == "launched" and row.get("machine") == machine),
        None,
    )
    made = [row for row in rows if row["event"] == "attempt" and row.get("token") == token]
    return _attempt(made[-1]) if token and made else None


def launched_machines(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """Return the ids of all machines that the cloud ever confirmed, oldest first."""
    return tuple(str(row["machine"]) for row in rows if row["event"] == "launched")


def unended_machines(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """Return the machines that were confirmed and never seen gone, oldest first."""
    ended: set[str] = set()
    for row in rows:
        if row["event"] == "terminated":
            ended.update(str(name) for name in cast("list[object]", row.get("machines", [])))
    return tuple(name for name in launched_machines(rows) if name not in ended)


def launched_at(rows: tuple[Row, ...], machine: str) -> datetime | None:
    """Return when the cloud confirmed a machine, by this computer's clock; None if it never did."""
    for row in rows:
        if row["event"] == "launched" and row.get("machine") == machine:
            return datetime.fromisoformat(str(row["at"]))
    return None


def ended_at(rows: tuple[Row, ...], machine: str) -> datetime | None:
    """Return when a machine was confirmed gone, None while it was not."""
    for row in rows:
        if row["event"] == "terminated" and machine in cast("list[object]", row.get("machines", [])):
            return datetime.fromisoformat(str(row["at"]))
    return None


def parked_seconds(rows: tuple[Row, ...], machine: str, now: datetime) -> float:
    """Return how long a machine was off until `now`, whoever stopped it.

    By this computer's own commands, and by what the machine's guard told of itself
    (rows of the event `away`); a time that both know counts once.
    """
    off: list[tuple[datetime, datetime]] = []
    since = None
    for row in rows:
        if row.get("machine") != machine:
            continue
        at = datetime.fromisoformat(str(row["at"]))
        if row["event"] == "stopped":
            since = at
        elif row["event"] == "start" and since is not None:
            off, since = [*off, (since, at)], None
        elif row["event"] == "away":
            told = cast("list[list[str]]", row.get("off", []))
            off += [(datetime.fromisoformat(a), datetime.fromisoformat(b)) for a, b in told]
    return _covered([*off, (since, now)] if since is not None else off)


def _covered(spans: list[tuple[datetime, datetime]]) -> float:
    """Return the seconds that lie in one span at least."""
    total, until = 0.0, None
    for begin, end in sorted(spans):
        since = begin if until is None else max(begin, until)
        if end > since:
            total, until = total + (end - since).total_seconds(), end
    return total


def last_session(rows: tuple[Row, ...]) -> int:
    """Return the highest session number ever started in a run, 0 for none.

    Numbers are never used twice in a run, whatever became of its machine: what came
    home from one session must never be taken for, or replaced by, another's.
    """
    return max((int(str(row["number"])) for row in rows if row["event"] == "session"), default=0)


def brought_home(rows: tuple[Row, ...]) -> tuple[int, int] | None:
    """Return session and exit code of a training whose result is proven at home.

    None where it is not, or where anything was begun since: a session, or a launch.
    """
    for row in reversed(rows):
        if row["event"] in ("session", "attempt"):
            return None
        if row["event"] == "home":
            return int(str(row["session"])), int(str(row["exit_code"]))
    return None
