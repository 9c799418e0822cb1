"""The digits example on a bare machine, from nothing to training: part of make test-all, 3 GB; by itself with DIGITS_BARE=1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nspawn import left_of, require_nspawn
from tests.support.road import Road, home
from tests.support.thorough import THOROUGH

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
pytestmark = [
    pytest.mark.skipif(
        not (THOROUGH or os.environ.get("DIGITS_BARE")),
        reason="installs PyTorch: make test-all, or DIGITS_BARE=1",
    ),
    pytest.mark.timeout(3600),
]


@pytest.fixture
def road(tmp_path: Path) -> Generator[Road]:
    require_nspawn()
    with home(tmp_path / "home") as made:
        found = Road(tmp_path / "road", made, {"CLOUDTRAIN_SANDBOX_MACHINES": "nspawn"})
        shutil.copytree(EXAMPLE, found.project, dirs_exist_ok=True)
        subprocess.run([sys.executable, "make_dataset.py"], cwd=found.project, check=True)
        yield found
    assert left_of(found.state) == []


def called(road: Road, *args: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(road.call(*args, "--json", timeout=2400).stdout)
    return answer["result"]


def test_from_nothing_to_training_and_the_second_time_nothing_changes(road: Road) -> None:
    road.module = "tests.support.rebooting"  # one step more, that asks for a boot
    road.env["PYTHONPATH"] = str(EXAMPLE.parents[1])
    up = called(road, "up", "-y")
    assert up["session"]["state"] == "running"
    stages = [stage["stage"] for stage in up["waterfall"]["stages"]]
    assert stages.index("kernel") < stages.index("reboot") < stages.index("start training")
    # After the boot they are looked at once more, so each may be listed twice.
    changed = {stage["stage"] for stage in up["waterfall"]["stages"] if stage["outcome"] == "changed"}
    assert {"base", "uv", "environment", "torch", "trainer"} <= changed
    again = called(road, "up", "-y")
    assert not [stage for stage in again["waterfall"]["stages"] if stage["outcome"] == "changed"]
    road.module = "cloudtrain"
    assert not again["created"]
    assert called(road, "provision")["changed"] == 0
    road.wait_for_end(timeout=1800)
    down = called(road, "down")
    assert any(one["kind"] == "best" and one["complete"] for one in down["artifacts"])
    assert road.left() == []
