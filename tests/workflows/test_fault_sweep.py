"""Every call to the cloud fails in every way: success, or one clear error with the truth.

`make fault-sweep` visits every call of `up`, `stop`, `start` and `down`; the tests here some. None may
end in a leak, in a second machine, or in a traceback; and whatever fails says what runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.faults import arm, calls, disarm
from tests.support.road import Road
from tests.support.thorough import THOROUGH

pytestmark = [pytest.mark.road, pytest.mark.timeout(7200)]
EVERY = bool(os.environ.get("FAULT_SWEEP"))
KINDS: dict[str, dict[str, Any]] = {
    "throttled": {"error": "RequestLimitExceeded", "times": 2},
    "internal": {"error": "InternalError", "times": 2},
    "reset before": {"reset": True},
    "reset after": {"reset": True, "when": "after"},
    "late": {"stall": 2.0},
    "expired": {"error": "ExpiredToken", "times": 0},
    "no right": {"error": "UnauthorizedOperation", "times": 0},
}
LAUNCH = (
    "InsufficientInstanceCapacity",
    "VcpuLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "PendingVerification",
    "Unsupported",
    "SpotMaxPriceTooLow",
    "InvalidParameterCombination",
)
SOME = ("reset after", "no right", *(("throttled",) if THOROUGH else ()))
MARKETS = ("on-demand", "spot", "spot-then-on-demand")
REFUSALS = (
    [(market, code) for market in MARKETS for code in LAUNCH]
    if EVERY
    else [
        ("spot", "MaxSpotInstanceCountExceeded"),
        ("on-demand", "InvalidParameterCombination"),
        ("spot-then-on-demand", "InsufficientInstanceCapacity"),
    ]
)


@pytest.fixture
def way(way: Road) -> Road:
    way.running  # noqa: B018 - the sandbox is up before a fault is armed
    return way


def made_by(way: Road, *command: str) -> list[tuple[str, str]]:
    """Run a command and return the calls it made: service and action, each once."""
    before = len(calls(way))
    way.call(*command)
    return list(dict.fromkeys((str(c["service"]), str(c["call"])) for c in calls(way)[before:]))


def chosen(found: list[tuple[str, str]], few: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    for service, action in found:
        for kind in KINDS:
            if EVERY or (action in few and kind in SOME):
                yield service, action, kind


def check_truth(way: Road, said: str, where: str) -> None:
    """What a failure says about machines is what the cloud knows."""
    assert "error:" in said, where
    if way.alive():
        known = way.alive()[0] in said or "may have been launched" in said
        assert known, f"{where}: a machine runs, and nobody says so\n{said}"
    else:
        assert "still runs" not in said, where


def test_up(way: Road) -> None:
    found = made_by(way, "up", "-y")
    way.call("down", "--stop-training")
    visited = 0
    for service, action, kind in chosen(found, ("RunInstances", "ImportKeyPair")):
        where = f"up, {service} {action}, {kind}"
        arm(way, at=1, call=action, **KINDS[kind])
        done = way.call("up", "-y", code=None)
        disarm(way)
        if done.returncode != 0:
            assert done.returncode in (3, 4), f"{where}: {done.returncode}\n{done.stderr}"
            check_truth(way, done.stderr, where)
            way.call("up", "-y")
        assert len(way.alive()) == 1, where
        way.call("down", "--stop-training")
        assert way.left() == [], where
        visited += 1
    sys.stdout.write(f"faults {visited} leaks 0\n")


def test_down(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    found = made_by(way, "down")
    visited = 0
    for service, action, kind in chosen(found, ("TerminateInstances", "DeleteSecurityGroup")):
        where = f"down, {service} {action}, {kind}"
        way.call("up", "-y")
        way.wait_for_end()
        arm(way, at=1, call=action, **KINDS[kind])
        done = way.call("down", code=None)
        disarm(way)
        if done.returncode != 0:
            assert done.returncode in (3, 7), f"{where}: {done.returncode}\n{done.stderr}"
            check_truth(way, done.stderr, where)
            way.call("down")
        assert way.left() == [], where
        visited += 1
    sys.stdout.write(f"faults {visited} leaks 0\n")


def test_stop_and_start(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    found = {verb: made_by(way, verb) for verb in ("stop", "start")}
    visited = 0
    for verb in ("stop", "start"):
        for service, action, kind in chosen(found[verb], ("StopInstances", "StartInstances")):
            where = f"{verb}, {service} {action}, {kind}"
            if verb == "start":
                way.call("stop")
            else:
                way.call("start")
            arm(way, at=1, call=action, **KINDS[kind])
            done = way.call(verb, code=None)
            disarm(way)
            if done.returncode != 0:
                assert done.returncode in (3, 4, 7), f"{where}: {done.returncode}\n{done.stderr}"
                assert "error:" in done.stderr, where
                way.call(verb)
            state = way.json("status")["result"]["machine"]["state"]
            assert state == {"stop": "stopped", "start": "running"}[verb], where
            assert len(way.alive()) == 1, where
            visited += 1
    down = way.json("down")["result"]
    assert any(one["kind"] == "best" and one["complete"] for one in down["artifacts"])
    assert way.left() == []
    sys.stdout.write(f"faults {visited} leaks 0\n")


@pytest.mark.parametrize(("market", "code"), REFUSALS)
def test_a_launch_refused_for_ever_leaves_nothing_that_costs(way: Road, market: str, code: str) -> None:
    arm(way, at=1, times=0, call="RunInstances", error=code)
    refused = way.call("up", "-y", "--market", market, code=3)
    assert code in refused.stderr
    check_truth(way, refused.stderr, f"{code} {market}")
    disarm(way)
    assert way.alive() == []
    way.call("up", "-y", "--market", market)
    assert len(way.alive()) == 1
    way.call("down", "--stop-training")
    assert way.left() == []
