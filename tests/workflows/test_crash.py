"""Killed before and after each call to the cloud: one machine after `up`, none after `down`.

`make crash-sweep` visits every point; the tests here visit some. A sweep ends when a
command made fewer calls than the point asks for: it was not killed, so there are no
more points.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.faults import arm, disarm, kill_at
from tests.support.road import Road

pytestmark = [pytest.mark.road, pytest.mark.timeout(1800)]
EVERY = bool(os.environ.get("CRASH_SWEEP"))


@pytest.fixture
def way(way: Road) -> Road:
    way.running  # noqa: B018 - the sandbox is up before a fault is armed
    return way


def points(few: tuple[int, ...]) -> tuple[int, ...]:
    """The calls to be killed at: some, or all there can be."""
    return tuple(range(1, 40)) if EVERY else few


def tell(visited: int) -> None:
    """End a sweep with its figure; anything else than 0 would have failed it before."""
    sys.stdout.write(f"points {visited} leaks 0 lost 0\n")


@pytest.mark.parametrize("when", ["before", "after"])
def test_up_killed_at_a_call_ends_in_one_machine(way: Road, when: str) -> None:
    visited = 0
    for at in points((8, 10, 11)):
        ended = kill_at(way, at, when, "up", "-y")
        if not ended.reached:
            assert ended.code == 0, ended.said
            way.call("down", "--stop-training")
            break
        visited += 1
        way.call("up", "-y")
        assert len(way.alive()) == 1, f"{when} call {at}"
        way.wait_for_end()
        way.call("down")
        assert way.left() == [], f"{when} call {at}"
    tell(visited)


@pytest.mark.parametrize("when", ["before", "after"])
def test_up_killed_at_a_call_and_never_run_again_leaves_nothing_after_down(way: Road, when: str) -> None:
    visited = 0
    for at in points((9, 10)):
        ended = kill_at(way, at, when, "up", "-y")
        way.call("down", "--stop-training")
        assert way.left() == [], f"{when} call {at}"
        visited += 1
        if not ended.reached:
            break
    tell(visited)


@pytest.mark.parametrize("when", ["before", "after"])
def test_down_killed_at_a_call_still_leaves_nothing_and_loses_nothing(way: Road, when: str) -> None:
    visited = 0
    for at in points((7, 9)):
        way.call("up", "-y")
        way.wait_for_end()
        ended = kill_at(way, at, when, "down")
        way.call("down")
        assert way.left() == [], f"{when} call {at}"
        homes = sorted((way.home / "data" / "runs").glob("road-*"), key=lambda path: path.stat().st_mtime)
        assert any(homes[-1].rglob("best.pt")), f"{when} call {at}"
        visited += 1
        if not ended.reached:
            break
    tell(visited)


@pytest.mark.parametrize("error", ["InternalError", "RequestLimitExceeded"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_launch_whose_answer_is_lost_is_asked_again_and_means_one_machine(
    way: Road, when: str, error: str
) -> None:
    arm(way, at=1, call="RunInstances", when=when, error=error, status=500)
    way.call("up", "-y")
    assert len(way.alive()) == 1
    way.call("down", "--stop-training")
    assert way.left() == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("InsufficientInstanceCapacity", ""),
        ("VcpuLimitExceeded", "Service Quotas"),
        ("UnauthorizedOperation", "docs/aws-account.md"),
        ("PendingVerification", "up to 4 hours"),
    ],
)
def test_a_refused_launch_says_why_and_leaves_nothing_that_costs(way: Road, code: str, says: str) -> None:
    arm(way, at=1, call="RunInstances", when="before", error=code)
    if code == "InsufficientInstanceCapacity":
        way.call("up", "-y")  # the first zone had none, the next one has
        assert len(way.alive()) == 1
    else:
        refused = way.call("up", "-y", code=3)
        assert code in refused.stderr
        assert says in refused.stderr
        assert way.alive() == []
    disarm(way)
    way.call("down", "--stop-training")
    assert way.left() == []
