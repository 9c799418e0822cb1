"""`provision --all`: several machines side by side, and one that fails hides no other."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.road import Road, home

pytestmark = pytest.mark.road


@pytest.fixture
def ways(tmp_path: Path) -> Generator[tuple[Road, Road, Road]]:
    with home(tmp_path / "home") as made:
        yield Road(tmp_path / "a", made), Road(tmp_path / "b", made), Road(tmp_path / "c", made)


def named(way: Road, name: str) -> Road:
    config = way.project / "cloudtrain.yaml"
    config.write_text(f"name: {name}\n" + config.read_text().partition("\n")[2])
    return way


def test_every_open_run_is_looked_after_and_a_failure_hides_nothing(ways: tuple[Road, Road, Road]) -> None:
    assert "no run is open" in ways[0].call("provision", "--all", code=2).stderr
    for way, name in zip(ways, ("first", "second", "third"), strict=True):
        named(way, name).call("up", "-y")
        way.wait_for_end()
    one = ways[0]
    assert "contradict" in one.call("provision", "--all", "--name", "first", code=2).stderr
    every = one.json("provision", "--all", "--dry-run")["result"]
    assert [machine["run"].split("-")[0] for machine in every["machines"]] == ["first", "second", "third"]
    assert every["failed"] == []

    ways[1].call("stop")
    done = one.call("provision", "--all", code=None)
    assert done.returncode != 0
    assert "third-" in done.stdout
    assert [line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("second-")] == [
        "failed"
    ]
    assert sum("0 steps changed" in line for line in done.stdout.splitlines()) == 2
    for way in ways:
        way.call("down")
    assert one.left() == []
