"""Whether a session may still change: it runs, or a guard goes on with it in a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cloudtrain.models.training import TrainingStatus

UNGUARDED_S = 90.0
"""How long a guard may be missing: a machine that has just begun answers before its guard looks."""


@dataclass(slots=True)
class Outlook:
    """Judges looks at one session. `since` is when its guard was first missing, None while one is there."""

    clock: Callable[[], float] = time.monotonic
    since: float | None = None

    def over(self, status: TrainingStatus) -> bool:
        """Whether nothing more will come of the session by itself."""
        session, guard = status.session, status.guard
        if session.state != "interrupted" or (guard is not None and guard.here):
            self.since = None
        if session.state != "interrupted":
            return session.state != "running"
        if guard is not None and guard.here:
            return guard.rescue or bool(guard.ending) or gave_up(status)
        self.since = self.clock() if self.since is None else self.since
        return self.clock() >= self.since + UNGUARDED_S


def gave_up(status: TrainingStatus) -> bool:
    """Whether the guard has tried in vain: with this session, in this boot, since it began last."""
    guard = status.guard
    if guard is None:
        return False
    times = [at for at in (status.begun, guard.booted) if at is not None]
    folder = "/".join(status.session.log.split("/")[-4:-1])  # what leads there may be spelled otherwise
    return any(
        one.kind == "gave-up" and f"{folder} " in one.text and one.at >= max(times, default=one.at)
        for one in guard.notices
    )
