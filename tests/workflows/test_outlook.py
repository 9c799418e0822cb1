"""Whether a session may go on by itself: what a guard left behind is no sign of it, nor of its giving up."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudtrain.errors import RefusedError
from cloudtrain.events import Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.run import Layout
from cloudtrain.models.training import GuardNotice, GuardStatus, Session, TrainingStatus
from cloudtrain.ssh.remote import Remote
from cloudtrain.training import status
from cloudtrain.workflows.context import Context
from cloudtrain.workflows.outlook import UNGUARDED_S, Outlook
from cloudtrain.workflows.waiting import Watched
from tests.support.sshd import Sshd
from tests.training.conftest import SLUG, Bench
from tests.training.test_life import reboot
from tests.transfer.conftest import Seen

BOOT = datetime(2026, 11, 21, 12, tzinfo=UTC)
GUARD = GuardStatus(None, 0, 0, "", rescue=False, booted=BOOT)
SESSION = Session(2, "s", "interrupted", "/r", "/home/u/cloudtrain/r-1/sessions/002/train.log")
INTERRUPTED = TrainingStatus(SESSION, guard=GUARD, begun=BOOT + timedelta(seconds=30))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def said(folder: str, after_s: float, kind: str = "gave-up") -> TrainingStatus:
    notice = GuardNotice(kind, f"{folder} did not start again", BOOT + timedelta(seconds=after_s))
    return replace(INTERRUPTED, guard=replace(GUARD, notices=(notice,)))


@pytest.mark.parametrize(
    ("found", "over"),
    [
        (replace(INTERRUPTED, session=replace(SESSION, state="running")), False),
        (replace(INTERRUPTED, session=replace(SESSION, state="finished")), True),
        (INTERRUPTED, False),
        (replace(INTERRUPTED, guard=replace(GUARD, ending="deadline")), True),
        (replace(INTERRUPTED, guard=replace(GUARD, ending="deadline", here=False)), False),
        (replace(INTERRUPTED, guard=replace(GUARD, rescue=True)), True),
        (said("/home/u/cloudtrain/r-1/sessions/002", 60), True),
        (said("/data/u/cloudtrain/r-1/sessions/002", 60), True),
        (said("/home/u/cloudtrain/r-1/sessions/001", 60), False),
        (said("/home/u/cloudtrain/r-1/sessions/002", 20), False),
        (said("/home/u/cloudtrain/r-1/sessions/002", -20), False),
        (said("/home/u/cloudtrain/r-1/sessions/002", 60, "resume"), False),
    ],
)
def test_what_is_over(found: TrainingStatus, over: bool) -> None:
    assert Outlook().over(found) is over


@pytest.mark.parametrize("guard", [None, replace(GUARD, here=False)])
def test_without_a_guard_it_is_over_after_a_while_and_not_before(guard: GuardStatus | None) -> None:
    outlook = Outlook(Clock())
    found = replace(INTERRUPTED, guard=guard)
    looks = 0
    while not outlook.over(found):
        looks += 1
    assert looks >= UNGUARDED_S / 2 - 1
    assert outlook.since is not None
    assert not outlook.over(INTERRUPTED)
    assert outlook.since is None


def left_behind(bench: Bench, age_s: float) -> None:
    """What a guard that is gone has left: after a reboot of somebody's own host, for one."""
    state = Path(bench.layout.root, "guard", "state")
    state.mkdir(parents=True)
    (state / "status.json").write_text(json.dumps({"at": time.time(), "deadline": 0}))
    then = time.time() - age_s
    os.utime(state / "status.json", (then, then))


@pytest.fixture
def bench(sshd: Sshd, remote: Remote) -> Bench:
    layout = Layout(f"{sshd.home}/cloudtrain/{SLUG}")
    Path(layout.project).mkdir(parents=True)
    return Bench(sshd, remote, layout)


@pytest.mark.parametrize("age_s", [10, 400])
def test_by_the_machines_clock_an_old_word_of_a_guard_is_none(bench: Bench, age_s: float) -> None:
    session = bench.start("echo on; sleep 600")
    bench.until(session, "on")
    left_behind(bench, age_s)
    found = status(bench.remote, bench.layout, bench.config("true"))
    assert found is not None
    assert found.guard is not None
    assert found.guard.here is (age_s < 180)
    assert found.begun is not None
    assert abs((datetime.now(UTC) - found.begun).total_seconds()) < 60
    reboot(bench, session)


def test_run_says_that_nothing_goes_on_and_keeps_the_machine(bench: Bench, tmp_path: Path) -> None:
    session = bench.start("echo on; sleep 600")
    bench.until(session, "on")
    left_behind(bench, 400)
    reboot(bench, session)
    seen = Seen()
    context = Context(
        config=bench.config("true"), base=tmp_path, provider=lambda: pytest.fail("no cloud is asked"),
        reporter=seen, timeline=Timeline(seen), confirm=lambda _: False, show_plan=lambda _: None,
    )  # fmt: skip
    watched = Watched(context, RunFolder(tmp_path / SLUG), lambda _: None, outlook=Outlook(Clock()))
    with pytest.raises(RefusedError, match="session 001 was interrupted, and nothing goes on") as refused:
        watched.follow(bench.remote)
    assert "cloudtrain train" in (refused.value.hint or "")
