"""Killed anywhere: before or after every call, remote command, program and journal row.

`make crash-sweep` visits every point of `up`, `train`, `stop`, `start` and `down`, one
point a run; the tests here visit a few. After the same command again there is exactly
one machine that answers, after `down` there is nothing, and the checkpoint is at home.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.road import Road
from tests.support.thorough import THOROUGH

pytestmark = [pytest.mark.road, pytest.mark.timeout(7200)]
EVERY = bool(os.environ.get("CRASH_SWEEP"))
FEW = (0.35, 0.7) if THOROUGH else (0.6,)
"""Where the fast subset kills, as parts of a command's way."""


@dataclass
class Sweep:
    """One project, whose commands are killed; `visited` points so far."""

    way: Road
    visited: int = 0

    def killed(self, at: int, when: str, *command: str) -> int:
        """Run a command, killed at a point; return how many points it came by."""
        found = self.way.root / "points"
        found.write_text("")
        done = warm.run(
            "tests.support.crash",
            (str(at), when, str(found), *command),
            cwd=self.way.project,
            env=self.way.environ(),
            timeout=180,
        )
        count = len(found.read_text().splitlines())
        allowed = (0,) if at == 0 or count < at else (-9,)
        assert done.returncode in allowed, f"{done.stdout}{done.stderr}"
        self.visited += done.returncode == -9
        return count

    def one_machine(self, where: str) -> None:
        assert len(self.way.alive()) == 1, where
        assert self.way.json("status")["result"]["training"] is not None, where

    def nothing(self, where: str) -> None:
        assert self.way.left() == [], where
        runs = sorted((self.way.home / "data" / "runs").glob("road-*"), key=lambda path: path.stat().st_mtime)
        mine = [run for run in runs if str(self.way.project) in (run / "run.json").read_text()]
        assert any(mine[-1].rglob("best.pt")), f"{where}: the checkpoint is lost"


@pytest.fixture
def sweep(tmp_path: Path, shared: Path) -> Generator[Sweep]:
    way = Road(tmp_path / "road", shared)
    way.running  # noqa: B018 - the sandbox is up before anything is counted
    made = Sweep(way)
    yield made
    way.call("down", "--discard", "--stop-training", code=None)
    if way.alive():
        way.running.provider().terminate(tuple(way.alive()), 60)
    sys.stdout.write(f"points {made.visited} leaks 0 lost 0\n")


def points(total: int) -> Iterator[tuple[int, str]]:
    """Yield the points to be killed at, of a command that comes by `total`."""
    chosen = range(1, total + 1) if EVERY else [max(1, round(total * part)) for part in FEW]
    for number, at in enumerate(chosen):
        for when in ("before", "after") if EVERY else (("after", "before")[number % 2],):
            yield at, when


def test_up_and_down(sweep: Sweep) -> None:
    going = sweep.killed(0, "before", "up", "-y")
    sweep.way.wait_for_end()
    ending = sweep.killed(0, "before", "down")
    sweep.nothing("unkilled")
    for at, when in points(max(going, ending)):
        sweep.killed(at, when, "up", "-y")
        sweep.way.call("up", "-y")
        sweep.one_machine(f"up, {when} {at}")
        sweep.way.wait_for_end()
        sweep.killed(round(at * ending / max(going, ending)) or 1 if not EVERY else at, when, "down")
        sweep.way.call("down")
        sweep.nothing(f"down, {when} {at}")


def test_up_never_run_again(sweep: Sweep) -> None:
    total = sweep.killed(0, "before", "up", "-y")
    sweep.way.call("down", "--stop-training")
    for at, when in points(total):
        sweep.killed(at, when, "up", "-y")
        sweep.way.call("down", "--stop-training")
        assert sweep.way.left() == [], f"up, {when} {at}"


def test_train(sweep: Sweep) -> None:
    sweep.way.call("up", "-y")
    sweep.way.wait_for_end()
    every(sweep, ("train",), lambda: sweep.way.call("train", "--replace"))
    sweep.way.call("down")
    sweep.nothing("train")


def test_stop_and_start(sweep: Sweep) -> None:
    sweep.way.call("up", "-y")
    sweep.way.wait_for_end()

    def stopped() -> None:
        sweep.way.call("stop")
        assert sweep.way.json("status")["result"]["machine"]["state"] == "stopped"

    stopping = sweep.killed(0, "before", "stop")
    starting = sweep.killed(0, "before", "start")
    for at, when in points(max(stopping, starting)):
        sweep.killed(at, when, "stop")
        stopped()
        sweep.killed(at, when, "start")
        sweep.way.call("start")
        sweep.one_machine(f"start, {when} {at}")
    stopped()
    sweep.way.call("down")
    sweep.nothing("stop and start")


def every(sweep: Sweep, command: tuple[str, ...], again: Callable[[], object]) -> None:
    """Kill a command at each point, repeat it, and find one machine that answers."""
    total = sweep.killed(0, "before", *command)
    for at, when in points(total):
        sweep.way.wait_for_end()
        sweep.killed(at, when, *command)
        again()
        sweep.one_machine(f"{command}, {when} {at}")
    sweep.way.wait_for_end()
