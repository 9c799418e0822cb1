"""A machine that nobody comes back to ends by itself: the emulated cloud says so."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from cloudtrain.sandbox.power import STATE
from tests.support.faults import arm, disarm
from tests.support.road import Road, until

pytestmark = pytest.mark.road
FIRST_CONTACT_S = 4
"""What the 20 minutes are shortened to, on these machines."""


@pytest.fixture
def way(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Road]:
    # Before the sandbox starts: what a machine's first contact may take is the server's to shorten.
    monkeypatch.setenv("CLOUDTRAIN_SANDBOX_DELAYS", f"first_contact={FIRST_CONTACT_S},grace=8")
    made = Road(tmp_path / "road", shared)
    made.running  # noqa: B018 - the sandbox is up before a fault is armed
    yield made
    disarm(made)
    made.call("down", "--discard", "--stop-training", code=None)


def killed_after_the_launch(way: Road, *options: str) -> str:
    """Run `up` and SIGKILL it when RunInstances has taken effect, its answer unread; return the machine."""
    gate = way.project / ".gate"
    os.mkfifo(gate)
    process = way.start("up", "-y", *options, gate=gate)
    arm(way, at=1, call="RunInstances", when="after", kill=process.pid)
    gate.write_text("go\n")
    process.communicate(timeout=60)
    disarm(way)
    gate.unlink()
    assert process.returncode == -9
    until(lambda: len(way.alive()) == 1, timeout=10)  # a new machine is not known at once
    (machine,) = way.alive()
    return machine


def state(way: Road, machine: str) -> str:
    """Ask the emulated cloud directly."""
    rows = way.running.ec2.describe_instances(InstanceIds=[machine])["Reservations"]
    return str(rows[0].get("Instances", [{}])[0].get("State", {}).get("Name"))


def receipt(way: Road, machine: str) -> dict[str, object]:
    """Read what the guard left on the machine's disk."""
    found: dict[str, object] = json.loads((way.state / "home" / machine / STATE / "receipt.json").read_text())
    return found


def test_killed_after_the_launch_and_never_run_again_it_stops_when_nobody_came(way: Road) -> None:
    machine = killed_after_the_launch(way)
    until(lambda: state(way, machine) == "stopped", timeout=60)
    assert receipt(way, machine)["why"] == "no-contact"
    assert way.alive() == [machine]  # one, and it stands still
    way.call("down")
    assert way.left() == []


def test_killed_after_the_launch_it_is_gone_where_the_lease_says_terminate(way: Road) -> None:
    config = way.project / "cloudtrain.yaml"
    config.write_text(config.read_text() + "lease: {after_training: terminate}\n")
    machine = killed_after_the_launch(way)
    until(lambda: state(way, machine) == "terminated", timeout=60)
    assert way.alive() == []
    way.call("down")
    assert way.left() == []


def test_killed_once_it_trains_and_never_run_again_it_stops_at_its_deadline(way: Road) -> None:
    (way.project / "wait").touch()  # a training without an end
    up = way.start("up", "-y", "--max-hours", str(25 / 3600))
    until(lambda: any((way.state / "home").glob("i-*/cloudtrain/*/sessions/001/started")), timeout=60)
    os.killpg(up.pid, 9)
    up.communicate()
    (machine,) = way.alive()
    until(lambda: state(way, machine) == "stopped", timeout=90)
    assert receipt(way, machine)["why"] == "deadline"
    way.call("down")
    assert way.left() == []
