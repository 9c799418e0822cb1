"""The guard's decisions, with an injected clock: examples, and promises that must hold for any life."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.guard.guard import (
    BELIEVED_S,
    RESCUE_S,
    TRIES,
    Lease,
    Notice,
    Now,
    PowerOff,
    Resume,
    Seen,
    Session,
    State,
    Tell,
    decide,
    remembered,
)

T0 = 1_800_000_000.0
LEASE = Lease(deadline=int(T0) + 3600, idle_s=1800, grace_s=120)
EMPTY, FRESH = Seen(contact=True), State()
HOME = "/home/u/cloudtrain/r-1/sessions/001"


def session(state: str = "running", secured: float = 0.0) -> Session:
    return Session(HOME, state, secured)


@dataclass
class Life:
    """A machine that is looked at every `step` seconds. `wall` may be set wrong."""

    lease: Lease = LEASE
    seen: Seen = EMPTY
    state: State = FRESH
    uptime: float = 10.0
    real: float = T0
    skew: float = 0.0
    boot: str = "a"
    step: float = 5.0
    done: list[tuple[float, Any]] = field(default_factory=list[tuple[float, Any]])

    def look(self) -> list[Any]:
        now = Now(self.real + self.skew, self.uptime, self.boot)
        self.state, actions = decide(self.lease, self.state, self.seen, now)
        self.done += [(self.real, action) for action in actions]
        return actions

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.real + seconds
        while self.real < end and not until():
            self.look()
            self.real += self.step
            self.uptime += self.step

    def reboot(self, away: float = 60.0) -> None:
        self.real += away
        self.uptime, self.boot = 10.0, self.boot + "+"

    @property
    def off(self) -> float | None:
        """Seconds after T0 of the first power-off."""
        return next((at - T0 for at, action in self.done if isinstance(action, PowerOff)), None)

    def kinds(self) -> list[str]:
        return [action.kind for _, action in self.done if isinstance(action, Notice)]


def of(life: Life, kind: type) -> list[Any]:
    return [action for _, action in life.done if isinstance(action, kind)]


def test_the_deadline_ends_an_empty_machine_at_once() -> None:
    life = Life(lease=LEASE._replace(idle_s=0))
    life.run(4000)
    assert life.off is not None
    assert 3600 <= life.off <= 3605
    assert life.kinds() == ["deadline-soon", "deadline"]


def test_a_trainer_gets_its_grace_and_no_more() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session(),)))
    life.run(4000)
    assert life.off is not None
    assert 3720 <= life.off <= 3725
    told = of(life, Tell)[0]
    assert (told.folder, told.kind, told.by) == (HOME, "deadline", pytest.approx(T0 + 3720, abs=6))  # pyright: ignore[reportUnknownMemberType]


def test_a_secured_checkpoint_ends_the_grace() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session(secured=T0 + 100),)))
    life.run(3640)
    assert life.off is None
    life.seen = life.seen._replace(sessions=(session(secured=T0 + 3640),))
    life.run(5)
    assert life.off == 3640


def test_nobody_ever_comes() -> None:
    life = Life(seen=Seen())
    life.run(1300)
    assert life.off is not None
    assert 1185 <= life.off <= 1195
    assert life.kinds() == ["no-contact"]


def test_contact_once_is_contact_for_ever_and_idleness_starts_then() -> None:
    life = Life(seen=Seen(), lease=LEASE._replace(idle_s=600))
    life.run(1150)
    life.seen = Seen(contact=True)
    life.run(590)
    assert life.off is None
    life.seen = Seen()
    life.run(60)
    assert life.kinds() == ["idle-soon", "idle"]


def test_extend_during_the_grace_calls_it_off() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session(),)))
    life.run(3650)
    assert life.kinds() == ["deadline-soon", "deadline"]
    life.seen = life.seen._replace(tag=int(T0) + 7200)
    life.run(1000)
    assert life.off is None
    assert life.kinds()[-1] == "kept"
    assert of(life, Tell)[-1].kind == ""


@pytest.mark.parametrize("tag", [0, 12, 1_800_000_000_000, -5])
def test_a_strange_tag_changes_nothing(tag: int) -> None:
    life = Life(lease=LEASE._replace(idle_s=0))
    life.seen = Seen(contact=True, tag=int(T0) + 1800)
    life.run(60)
    life.seen = Seen(contact=True, tag=tag)
    life.run(4000, until=lambda: life.off is not None)
    assert life.off is not None
    assert 1800 <= life.off <= 1805


def test_a_restart_of_the_guard_renews_nothing(tmp_path: Any) -> None:
    life = Life(lease=LEASE._replace(idle_s=600))
    life.run(500)
    (tmp_path / "state.json").write_text(json.dumps(life.state._asdict()))
    again = remembered(str(tmp_path / "state.json"))
    assert again == life.state
    life.state = again
    life.run(200, until=lambda: life.off is not None)
    assert life.off is not None
    assert life.off <= 605


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"clock": "x", "said": 3, "_fields": [1], "boot": null}', "\0"]
)
def test_a_broken_memory_is_none(tmp_path: Any, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert remembered(str(tmp_path / "state.json")) == State()


def test_idle_needs_nothing_to_run() -> None:
    for seen in (
        Seen(contact=True, active="the GPU"),
        Seen(contact=True, fetching=True),
        Seen(contact=True, sessions=(session(),)),
    ):
        life = Life(seen=seen, lease=LEASE._replace(idle_s=300))
        life.run(3000)
        assert life.off is None
        assert life.kinds() == ["deadline-soon"] or not life.kinds()
        life.seen = Seen(contact=True, sessions=(session("finished"),))
        life.run(400)
        assert life.off is not None


def test_input_at_the_last_moment_counts_and_the_warning_comes_again() -> None:
    life = Life(lease=LEASE._replace(idle_s=300))
    life.run(280)
    life.seen = Seen(contact=True, active="a terminal")
    life.run(5)
    life.seen = Seen(contact=True)
    life.run(290)
    assert life.off is None
    assert life.kinds() == ["idle-soon", "idle-soon"]


def test_keep_lives_to_its_deadline() -> None:
    life = Life(lease=LEASE._replace(idle_s=300, after_training="keep"))
    life.run(4000)
    assert life.off is not None
    assert life.off >= 3600


def test_terminate_never_deletes_an_unfetched_checkpoint_for_idleness() -> None:
    lease = LEASE._replace(idle_s=300, after_training="terminate")
    life = Life(lease=lease, seen=Seen(contact=True, sessions=(session("finished", 5.0),), unfetched=True))
    life.run(1000)
    assert life.off is None
    life.seen = life.seen._replace(unfetched=False)
    life.run(20)
    assert life.off is not None


def test_a_boot_past_the_deadline_is_a_rescue_window() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session("interrupted"),)))
    life.run(100)
    life.reboot(away=9000)
    back = life.real
    life.run(3000, until=lambda: life.off is not None)
    assert life.off is not None
    assert T0 + life.off - back == pytest.approx(RESCUE_S, abs=15)  # pyright: ignore[reportUnknownMemberType]
    assert not of(life, Resume) or all(at < back for at, a in life.done if isinstance(a, Resume))


def test_an_uptime_that_falls_is_a_new_boot() -> None:
    """A machine that shares its kernel with another keeps the boot's id."""
    life = Life(lease=LEASE._replace(idle_s=0))
    life.run(3000)
    life.uptime, life.real = 3.0, life.real + 5000
    life.run(60)
    assert life.state.rescue
    assert life.off is None


def test_our_fetch_holds_the_window_and_two_hours_at_most() -> None:
    life = Life()
    life.real += 9000
    life.seen = Seen(contact=True, fetching=True)
    life.run(2000)
    assert life.off is None
    life.seen = Seen(contact=True)
    life.run(10)
    assert life.off is not None
    life = Life(seen=Seen(contact=True, fetching=True))
    life.real += 9000
    life.run(9000)
    assert life.off is not None
    assert life.off - 9000 == pytest.approx(LEASE.rescue_most_s, abs=15)  # pyright: ignore[reportUnknownMemberType]


def test_extending_a_stopped_machine_continues_its_training() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session("interrupted"),)))
    life.real += 9000
    life.run(60)
    assert not of(life, Resume)
    life.seen = life.seen._replace(tag=int(life.real) + 3600)
    life.run(15)
    assert [action.folder for action in of(life, Resume)] == [HOME]
    assert life.off is None


def test_an_interrupted_session_is_continued_but_not_for_ever() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session("interrupted"),)), lease=LEASE._replace(idle_s=0))
    life.run(3000)
    assert len(of(life, Resume)) == TRIES
    assert life.kinds().count("gave-up") == 1


def test_one_look_is_no_interruption() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session("interrupted"),)))
    life.look()
    assert not of(life, Resume)


@pytest.mark.parametrize("state", ["finished", "failed", "running"])
def test_nothing_else_is_ever_started(state: str) -> None:
    life = Life(seen=Seen(contact=True, sessions=(session(state),)))
    life.run(3000)
    life.reboot()
    life.run(100)
    assert not of(life, Resume)


def test_spot_and_rebalance_are_told_once_and_power_off_nothing() -> None:
    life = Life(seen=Seen(contact=True, sessions=(session(),), rebalance=True))
    life.run(50)
    life.seen = life.seen._replace(spot="stop")
    life.run(100)
    assert life.kinds() == ["rebalance", "spot"]
    assert [action.kind for action in of(life, Tell)] == ["rebalance", "spot"]
    assert life.off is None


def test_a_failing_power_off_is_tried_again() -> None:
    life = Life(lease=LEASE._replace(idle_s=0))
    life.run(3700)
    offs = of(life, PowerOff)
    assert len(offs) >= 3
    assert [off.again for off in offs[:2]] == [False, True]


def test_the_metadata_service_sets_the_clock_right() -> None:
    life = Life(skew=-5000, lease=LEASE._replace(idle_s=0))
    life.look()
    life.seen = Seen(contact=True, date=life.real)
    life.run(4000, until=lambda: life.off is not None)
    # The fake date stands still, so the clock is held back to it: only the first look counts.
    assert life.state.clock <= life.real


def test_a_clock_set_right_after_boot_is_believed() -> None:
    life = Life(lease=LEASE._replace(idle_s=0), skew=-100_000)
    life.run(60)
    life.skew = 0
    life.run(BELIEVED_S + 3600, until=lambda: life.off is not None)
    assert life.off is not None
    assert life.off == pytest.approx(3600, abs=10)  # pyright: ignore[reportUnknownMemberType]


JUMPS = st.lists(st.tuples(st.floats(0, 2000), st.floats(-1e6, 1e6)), max_size=6)


@given(JUMPS)
def test_no_jump_of_the_clock_ever_lengthens_a_lease(jumps: list[tuple[float, float]]) -> None:
    life = Life(lease=LEASE._replace(idle_s=0), step=30)
    life.look()
    for seconds, skew in jumps:
        life.run(seconds)
        life.skew = skew
    life.run(8000, until=lambda: life.off is not None)
    assert life.off is not None
    assert life.off <= 3600 + life.step


@given(st.lists(st.tuples(st.floats(1, BELIEVED_S - 60), st.floats(121, 1e6)), max_size=6))
def test_a_passing_jump_ahead_ends_nothing(jumps: list[tuple[float, float]]) -> None:
    life = Life(lease=LEASE._replace(idle_s=0), step=5)
    life.look()
    for seconds, skew in jumps:
        life.skew = skew
        life.run(min(seconds, 200))
        life.skew = 0
        life.run(10)
    assert life.off is None


SEEN = st.builds(
    Seen,
    date=st.sampled_from([0.0, 1.0]),
    tag=st.sampled_from([0, 7, int(T0) + 1200, int(T0) + 2400, 10**15]),
    spot=st.sampled_from(["", "stop"]),
    rebalance=st.booleans(),
    contact=st.booleans(),
    sessions=st.sampled_from([(), (session(),), (session("interrupted"),), (session("finished", 4.0),)]),
    active=st.sampled_from(["", "the GPU"]),
    fetching=st.booleans(),
    unfetched=st.booleans(),
)
LEASES = st.builds(
    Lease,
    deadline=st.sampled_from([int(T0) + 1800, int(T0) + 60]),
    idle_s=st.sampled_from([0, 300]),
    after_training=st.sampled_from(["stop", "terminate", "keep"]),
    grace_s=st.sampled_from([0, 120]),
    first_contact_s=st.just(1200),
)


@given(LEASES, st.lists(st.tuples(st.sampled_from([5.0, 60.0, 400.0]), SEEN, st.booleans()), max_size=12))
def test_the_deadline_holds_in_any_life(lease: Lease, life_of: list[tuple[float, Seen, bool]]) -> None:
    """Whatever is seen, whenever it reboots: nothing runs past deadline and grace, or its rescue."""
    life = Life(lease=lease, step=20)
    deadline = float(lease.deadline)
    booted = life.real
    for seconds, seen, reboot in life_of:
        if reboot:
            life.reboot()
            booted = life.real
        life.seen = seen
        if seen.tag in (int(T0) + 1200, int(T0) + 2400):
            deadline = float(seen.tag)
        before = len(life.done)
        life.run(seconds)
        started_late = [
            at
            for at, action in life.done[before:]
            if isinstance(action, Resume) and at >= deadline + life.step
        ]
        assert not started_late
    life.seen = Seen(contact=True)
    if life.off is not None:
        return
    life.run(20_000, until=lambda: life.off is not None)
    assert life.off is not None
    latest = max(deadline + lease.grace_s, booted + RESCUE_S) + 2 * life.step
    assert T0 + life.off <= max(latest, booted + 7200)
