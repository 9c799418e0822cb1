"""The pace of a training: pure, with the clock as an argument."""

from __future__ import annotations

from datetime import UTC, datetime

from cloudtrain.models.training import Session, TrainingStatus
from cloudtrain.workflows.waiting import Pace

SESSION = Session(1, "s", "running", "/r", "/l", started=datetime.fromtimestamp(1000, UTC))


def test_the_estimate_falls_between_epochs_and_is_judged_anew_at_each() -> None:
    pace = Pace()
    assert pace.left(TrainingStatus(SESSION, None, 10), 1005) is None
    assert pace.left(TrainingStatus(SESSION, 1, 10), 1020) == 180
    assert pace.left(TrainingStatus(SESSION, 1, 10), 1030) == 170
    assert pace.left(TrainingStatus(SESSION, 2, 10), 1032) == 128
    assert pace.left(TrainingStatus(SESSION, 10, 10), 1200) == 0


def test_without_a_total_nobody_can_know() -> None:
    assert Pace().left(TrainingStatus(SESSION, 3, None), 1020) is None
