"""Which copy `up --resume` goes on from, and what it says is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from cloudtrain.errors import UsageError
from cloudtrain.events import Silent, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.config import Config, Train
from cloudtrain.models.machine import Machine
from cloudtrain.transfer.index import Index, Record, stamp
from cloudtrain.workflows.context import Context
from cloudtrain.workflows.resume import best_copy, what_is_lost
from tests.journal.test_journal import make_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path)


def context(base: Path) -> Context:
    reporter = Silent()
    config = Config(train=Train(args={"epochs": 100}))
    never: Any = None
    return Context(
        config=config,
        base=base,
        provider=never,
        reporter=reporter,
        timeline=Timeline(reporter),
        confirm=never,
        show_plan=never,
    )


def bring(run: RunFolder, session: int, epoch: int) -> None:
    """Put a proven last.pt of a session at home."""
    place = run.artifacts / f"{session:03d}"
    path = place / "weights" / "last.pt"
    path.parent.mkdir(parents=True)
    path.write_text(str(epoch))
    index = Index(place)
    here = cast("tuple[int, int]", stamp(path))
    index.accept("weights/last.pt", Record("/r/last.pt", here[0], "1", "0", here, epoch))
    index.save()


def machine(launched: datetime) -> Machine:
    return Machine("i-1", "stopped", "g4dn.xlarge", "us-east-1a", "spot", None, launched)


def test_the_newest_session_counts_and_not_the_furthest(run: RunFolder, tmp_path: Path) -> None:
    bring(run, 1, 80)
    bring(run, 2, 10)
    chosen = best_copy(context(tmp_path), run)
    assert (chosen.session, chosen.epoch) == (2, 10)
    run.journal.append("reclaimed", machine="i-1", epoch=10, session=2)
    assert "nothing that was secured is lost" in what_is_lost(run, chosen)


def test_a_session_with_nothing_at_home_goes_on_from_the_one_before(run: RunFolder, tmp_path: Path) -> None:
    bring(run, 1, 80)
    (run.artifacts / "002").mkdir()
    assert best_copy(context(tmp_path), run).session == 1
    run.journal.append("reclaimed", machine="i-1", epoch=3, session=2)
    assert what_is_lost(run, best_copy(context(tmp_path), run)) == "what the machine did since is lost"


def test_what_ended_by_itself_is_not_gone_on_with(run: RunFolder, tmp_path: Path) -> None:
    bring(run, 1, 30)  # stopped early, by its own patience
    run.journal.append("session", number=1)
    run.journal.append("home", session=1, exit_code=0)
    with pytest.raises(UsageError, match="nothing to go on with"):
        best_copy(context(tmp_path), run)
    run.journal.append("session", number=2)
    bring(run, 2, 4)
    assert best_copy(context(tmp_path), run).session == 2


def test_what_was_not_watched_is_not_said_to_be_nothing(run: RunFolder, tmp_path: Path) -> None:
    bring(run, 1, 20)
    chosen = best_copy(context(tmp_path), run)
    unknown = "what the machine did since is lost"
    assert what_is_lost(run, chosen) == unknown
    run.journal.append("reclaimed", machine="i-1", epoch=21, session=1)
    before, after = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    assert what_is_lost(run, chosen, machine(before)) == "1 epoch that the machine had secured is lost"
    assert what_is_lost(run, chosen, machine(after)) == unknown  # it was back meanwhile
    run.journal.append("reclaimed", machine="i-1", epoch=15, session=1)
    assert what_is_lost(run, chosen, machine(before)) == unknown  # so it was, for what is here is newer
