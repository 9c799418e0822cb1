"""Spot on the whole road: parked, reclaimed, given back and ended, with nothing relaunched behind us."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.faults import account, arm, calls, disarm, give_back, reclaim
from tests.support.road import Road, until

pytestmark = pytest.mark.road


@pytest.fixture
def way(tmp_path: Path, shared: Path) -> Generator[Road]:
    made = Road(tmp_path / "road", shared)
    made.running  # noqa: B018 - the sandbox is up before its knobs are turned
    yield made
    give_back(made)
    made.call("down", "--discard", "--stop-training", code=None)


def requests(way: Road, *states: str) -> list[str]:
    """Ask the emulated cloud for the spot requests that are in one of these states."""
    ec2 = way.running.ec2
    rows = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    return [
        str(r.get("SpotInstanceRequestId")) for r in rows if r.get("State") in (states or (r.get("State"),))
    ]


def machine(way: Road) -> dict[str, str]:
    found: dict[str, str] = way.json("status")["result"]["machine"]
    return found


def trained(way: Road) -> None:
    way.call("up", "-y", "--market", "spot")
    way.wait_for_end()


def stopped_by_ec2(way: Road) -> None:
    reclaim(way, *way.alive(), notice_s=0)
    until(lambda: machine(way)["state"] == "stopped")


def test_down_cancels_the_request_before_it_terminates(way: Road) -> None:
    trained(way)
    assert len(requests(way, "active")) == 1
    begun = len(calls(way))
    down = way.call("down")
    assert "best.pt" in down.stdout
    ended = [row["call"] for row in calls(way)[begun:]]
    assert ended.index("CancelSpotInstanceRequests") < ended.index("TerminateInstances")
    assert requests(way, "open", "active", "disabled") == []
    assert way.left() == []


def test_stop_and_start_keep_the_disk_and_down_of_a_parked_one_fetches_before_it_cancels(way: Road) -> None:
    trained(way)
    way.call("stop")
    assert len(requests(way, "disabled")) == 1
    way.call("start")
    assert way.call("logs").stdout.splitlines()[-1] == "last line"
    way.call("stop")
    begun = len(calls(way))
    down = way.call("down")
    assert "best.pt" in down.stdout
    ended = [row["call"] for row in calls(way)[begun:]]
    assert ended.index("StartInstances") < ended.index("CancelSpotInstanceRequests")
    assert way.left() == []


def test_a_reclaimed_machine_is_not_given_up_by_down_and_comes_back_by_itself(way: Road) -> None:
    trained(way)
    before = machine(way)
    stopped_by_ec2(way)
    refused = way.call("down", code=7)
    assert "capacity" in refused.stderr
    assert "--discard" in refused.stderr
    assert "fetched" not in refused.stdout
    assert len(requests(way, "open", "active", "disabled")) == 1
    assert way.alive() == [before["id"]]
    start = way.call("start", code=3)
    assert "EC2" in start.stderr
    give_back(way)
    until(lambda: machine(way)["state"] == "running")
    until(lambda: machine(way)["address"] not in (None, before["address"]))
    until(lambda: way.call("logs", code=None).stdout.splitlines()[-1:] == ["last line"])
    down = way.call("down")
    assert "best.pt" in down.stdout
    assert way.left() == []


def test_discarding_a_reclaimed_machine_leaves_nothing_that_comes_back(way: Road) -> None:
    trained(way)
    stopped_by_ec2(way)
    way.call("down", "--discard")
    give_back(way)
    assert way.left() == []
    assert requests(way, "open", "active", "disabled") == []


def test_down_waits_for_capacity_when_asked_to(way: Road) -> None:
    trained(way)
    stopped_by_ec2(way)
    down = way.start("down", "--wait-for-capacity", "1")
    assert down.stderr is not None
    said = iter(down.stderr.readline, "")
    assert any("only EC2 starts it again" in line for line in said)
    give_back(way)
    out, _ = down.communicate(timeout=60)
    assert down.returncode == 0
    assert "best.pt" in out
    assert way.left() == []


def test_no_spot_then_on_demand_says_what_refused_it_and_leaves_no_request(way: Road) -> None:
    zones = {f"us-east-1{letter}": {"spot": 0} for letter in "abcdef"}
    account(way, capacity={"g4dn.xlarge": zones}, open_requests=True)
    try:
        up = way.call("up", "-y", "--market", "spot-then-on-demand", "--max-cost", "2")
        assert "else      g4dn.xlarge (on-demand)" in up.stderr
        assert "at most 2.00 USD" in up.stderr
        assert "InsufficientInstanceCapacity" in up.stderr
        assert requests(way, "open", "active") == []
        assert machine(way)["market"] == "on-demand"
        record = way.json("status")["result"]["record"]
        hours = (datetime.fromisoformat(record["deadline"]) - datetime.now(UTC)).total_seconds() / 3600
        assert hours * record["price_hour"] <= 2  # the lease that was had, not the cheaper one that was not
        refused = way.call("down", "--stop-training")
        assert "0 left" in refused.stderr
    finally:
        account(way)


def test_a_request_that_cannot_be_cancelled_ends_the_search_for_machines(way: Road) -> None:
    types = ("g4dn.xlarge", "g5.xlarge")
    zones = {f"us-east-1{letter}": 0 for letter in "abcdef"}
    account(way, capacity=dict.fromkeys(types, zones), open_requests=True)
    arm(way, at=1, times=0, call="CancelSpotInstanceRequests", error="UnauthorizedOperation")
    config = way.project / "cloudtrain.yaml"
    config.write_text(config.read_text() + f"instance: {{market: spot, type: [{', '.join(types)}]}}\n")
    try:
        refused = way.call("up", "-y", code=3)
        left = requests(way, "open")
        assert len(left) == 1
        assert left[0] in refused.stderr
        assert "nothing else was tried" in refused.stderr
        disarm(way)
        way.call("down")
        assert requests(way, "open", "active") == []
    finally:
        disarm(way)
        account(way)
    assert way.alive() == []
