"""Spot with nobody there: noticed, secured, taken, given back, gone on with, finished, fetched."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.sandbox.power import STATE
from tests.support.faults import give_back, reclaim
from tests.support.road import Road, home, until
from tests.workflows.test_lease import COUNTING, epoch_in

pytestmark = [pytest.mark.road, pytest.mark.timeout(400)]
NOTICE_S = 12
"""Two polls of the guard, and room."""


@pytest.fixture
def shared(tmp_path: Path) -> Generator[Path]:
    """A home of each test's own: they look into its run folders."""
    with home(tmp_path / "home") as made:
        yield made


@pytest.fixture
def way(tmp_path: Path, shared: Path) -> Generator[Road]:
    made = Road(tmp_path / "road", shared)
    (made.project / "train.py").write_text(COUNTING)
    yield made
    give_back(made)
    made.call("down", "--discard", "--stop-training", code=None)


def machine(way: Road) -> dict[str, Any]:
    found: dict[str, Any] = way.json("status")["result"]["machine"]
    return found


def disk(way: Road) -> Path:
    (name,) = way.alive()
    return way.state / "home" / name


def said(way: Road) -> list[str]:
    """The kinds of notice that the guard has given, read from the disk."""
    path = disk(way) / STATE / "notice.json"
    return [one["kind"] for one in json.loads(path.read_text())["notices"]] if path.exists() else []


def log(way: Road) -> list[str]:
    return next(disk(way).glob("cloudtrain/*/sessions/001/train.log")).read_text().splitlines()


def secured(way: Road) -> Path:
    return next(disk(way).glob("cloudtrain/*/sessions/001"), disk(way)) / "secured"


def starts(way: Road) -> list[int]:
    return [int(line.split()[1]) for line in log(way) if line.startswith("from ")]


def test_with_the_laptop_away_it_goes_on_at_a_new_address_and_finishes(way: Road) -> None:
    up = way.start("up", "-y", "--market", "spot")
    until(lambda: any((way.state / "home").glob("i-*/cloudtrain/*/sessions/001/secured")), timeout=60)
    os.killpg(up.pid, 9)  # the lid is closed
    up.communicate()
    (name,) = way.alive()
    ec2 = way.running.ec2

    def instance() -> Any:
        return ec2.describe_instances(InstanceIds=[name])["Reservations"][0].get("Instances", [{}])[0]

    before = instance().get("PublicIpAddress")
    reclaim(way, name, notice_s=NOTICE_S)
    until(lambda: "spot" in said(way))
    until(lambda: instance()["State"].get("Name") == "stopped", timeout=60)
    kept = max(epoch_in(path) for path in disk(way).glob("cloudtrain/*/secured/001/*.pt"))
    done = int(next(line for line in reversed(log(way)) if line.startswith("epoch ")).split()[1])
    assert done - kept <= 6  # half a second each
    give_back(way)
    until(lambda: len(starts(way)) == 2, timeout=60)
    assert instance().get("PublicIpAddress") not in (None, before)
    assert starts(way) == [0, kept]
    next(disk(way).glob("cloudtrain/*/project")).joinpath("enough").touch()
    until(lambda: next(disk(way).glob("cloudtrain/*/sessions/001")).joinpath("exit").exists())

    down = way.json("down")["result"]  # the laptop is back
    best = max(epoch_in(Path(one["path"])) for one in down["artifacts"] if one["path"].endswith(".pt"))
    assert best >= kept
    assert down["receipt"]["leftovers"] == []
    assert 0 < down["receipt"]["parked_hours"] < down["receipt"]["hours"]
    assert way.left() == []


def test_run_waits_the_reclaim_out_and_shows_it(way: Road) -> None:
    said = way.root / "said"
    run = way.start("run", "-y", "--market", "spot", said=said)
    until(lambda: any((way.state / "home").glob("i-*/cloudtrain/*/sessions/001/secured")), timeout=60)
    reclaim(way, *way.alive(), notice_s=NOTICE_S)
    until(lambda: machine(way)["state"] == "stopped", timeout=60)
    status = way.call("status").stdout
    assert "EC2 took it back" in status
    until(lambda: "EC2 took i-" in said.read_text())
    give_back(way)
    until(lambda: len(starts(way)) == 2, timeout=60)
    next(disk(way).glob("cloudtrain/*/project")).joinpath("enough").touch()
    out, err = run.communicate(timeout=120)[0], said.read_text()
    assert run.returncode == 0, err
    assert "EC2 takes this spot machine back now" in err, err
    assert "the machine is back after" in err
    assert "the training goes on" in err or "the training went on" in err  # it may end between two looks
    assert "of work were lost" in err
    assert "is at home" in err or "last.pt" in out
    assert way.left() == []


def test_past_its_patience_run_offers_to_go_on_elsewhere_and_that_loses_what_it_says(way: Road) -> None:
    config = way.project / "cloudtrain.yaml"
    config.write_text(config.read_text() + "spot: {patience: 0.05}\n")
    run = way.start("run", "-y", "--market", "spot")
    until(
        lambda: any((way.home / "data" / "runs").glob("road-*/artifacts/001/outputs/out/last.pt")), timeout=90
    )
    first = way.alive()
    reclaim(way, *first, notice_s=0)
    _, err = run.communicate(timeout=90)
    assert run.returncode == 3, err
    assert "has not given the machine back" in err
    assert "cloudtrain up --resume" in err
    assert "is at home" in err
    record = json.loads(next((way.home / "data" / "runs").glob("road-*/run.json")).read_text())
    assert record["ended"] is None

    way.call("up", "--resume", code=2)  # not without a yes
    assert way.alive() == first
    up = way.call("up", "--resume", "-y", "--market", "on-demand")
    assert "going on from" in up.stderr
    (second,) = way.alive()
    assert second not in first
    begun = next((way.state / "home" / second).glob("cloudtrain/*/sessions/002/train.log"))
    until(lambda: "from " in begun.read_text())
    assert int(begun.read_text().partition("from ")[2].split()[0]) > 0
    next((way.state / "home" / second).glob("cloudtrain/*/project")).joinpath("enough").touch()
    assert way.call("run", "-y", "--market", "on-demand").returncode == 0
    assert way.left() == []


def test_a_run_whose_machine_is_gone_goes_on_from_home(way: Road) -> None:
    way.call("up", "-y")
    until(lambda: secured(way).exists())
    way.call("fetch-weights")
    way.call("down", "--discard", "--stop-training")
    assert way.left() == []
    up = way.call("up", "--resume", "-y")
    assert "push checkpoint" in up.stderr
    until(lambda: any(disk(way).glob("cloudtrain/*/sessions/*/train.log")))
    begun = next(disk(way).glob("cloudtrain/*/sessions/*/train.log"))
    until(lambda: "from " in begun.read_text())
    assert int(begun.read_text().partition("from ")[2].split()[0]) > 0


def test_nothing_at_home_is_nothing_to_resume(way: Road) -> None:
    refused = way.call("up", "--resume", "-y", code=2)
    assert "no checkpoint at home" in refused.stderr
    assert way.alive() == []
