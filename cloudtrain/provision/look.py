"""What exists of a run, when the cloud may not show it yet, or not any more.

A describe lags behind the launch that it follows, for seconds; and a machine that
ended is forgotten after an hour. Either way it is missing from the answer, and only
the journal's clock tells one from the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import launched_at, unended_machines, utc_now
from cloudtrain.models.plan import Observation
from cloudtrain.providers.base import Provider

LAG_S = 60.0
"""How long after its launch a machine may stay invisible; EC2's usual lag is a few seconds."""


def observe_settled(
    folder: RunFolder,
    provider: Provider,
    *,
    now: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Observation:
    """Observe a run until every machine that the journal knows shows, or cannot come any more.

    A machine that still does not show is journaled as ended: the cloud has forgotten it.
    """
    pause = 0.1
    while True:
        observed = provider.observe(folder.run())
        missing = _missing(folder, observed)
        if not missing:
            return observed
        young = [name for name in missing if _age_s(folder, name, now()) < LAG_S]
        if not young:
            folder.journal.append("terminated", machines=missing, reason="the cloud knows it no more")
            return observed
        sleep(pause)
        pause = min(pause * 1.5, 2.0)


def _missing(folder: RunFolder, observed: Observation) -> list[str]:
    shown = {machine.id for machine in observed.machines}
    return [name for name in unended_machines(folder.journal.rows()) if name not in shown]


def _age_s(folder: RunFolder, machine: str, now: datetime) -> float:
    at = launched_at(folder.journal.rows(), machine)
    return LAG_S if at is None else (now - at).total_seconds()
