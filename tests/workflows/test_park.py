"""`stop` and `start`: the disk and the pinned key stay, the address does not."""

from __future__ import annotations

import pytest

from tests.support.faults import arm
from tests.support.road import Road

pytestmark = pytest.mark.road


def state(way: Road) -> str:
    return str(way.json("status")["result"]["machine"]["state"])


def test_stop_parks_start_resumes_and_down_brings_the_weights_home(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    stopped = way.call("stop")
    assert "a month" in stopped.stdout
    assert state(way) == "stopped"
    assert "cloudtrain start" in way.call("logs", code=2).stderr
    again = way.json("stop")["result"]
    assert again["cost_month"] > 0
    started = way.json("start")["result"]
    assert started["session"]["number"] == 1
    assert way.call("logs").stdout.splitlines()[-1] == "last line"
    assert way.json("start")["result"]["machine"] == started["machine"]
    way.call("stop")
    down = way.call("down")
    assert "best.pt" in down.stdout
    assert way.left() == []


def test_stop_does_not_end_a_training_unasked(way: Road) -> None:
    (way.project / "wait").touch()
    way.call("up", "-y")
    refused = way.call("stop", code=7)
    assert "--stop-training" in refused.stderr
    assert state(way) == "running"
    way.call("stop", "--stop-training")
    assert state(way) == "stopped"


def test_no_capacity_to_start_is_said_with_its_price_and_can_be_waited_for(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    way.call("stop")
    arm(way, at=1, call="StartInstances", when="before", error="InsufficientInstanceCapacity", status=500)
    refused = way.call("start", code=3)
    assert "its disk costs" in refused.stderr
    assert "--wait-for-capacity" in refused.stderr
    arm(way, at=1, call="StartInstances", when="before", error="InsufficientInstanceCapacity", status=500)
    waited = way.call("start", "--wait-for-capacity", "0.1")
    assert "capacity" in waited.stderr
    assert state(way) == "running"


def test_up_starts_a_parked_machine(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    machine = way.json("stop")["result"]["machine"]
    up = way.json("up", "-y")["result"]
    assert up["machine"] == machine
    assert len(way.alive()) == 1
