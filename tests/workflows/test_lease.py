"""The lease on the whole road: kept by the machine, moved by `extend`, shown, and added up at the end."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.sandbox.power import STATE
from tests.support.road import Road, home, until

pytestmark = [pytest.mark.road, pytest.mark.timeout(400)]
GRACE_S = 6

COUNTING = """\
import os, pathlib, time, zipfile
last = pathlib.Path("out/last.pt")
last.parent.mkdir(exist_ok=True)
done = 0
if os.environ.get("CLOUDTRAIN_RESUME"):
    done = int(zipfile.ZipFile(os.environ["CLOUDTRAIN_RESUME"]).read("epoch"))
print(f"from {done}", flush=True)
while not os.path.exists("enough"):
    time.sleep(0.5)
    done += 1
    with zipfile.ZipFile(last, "w") as container:
        container.writestr("epoch", str(done))
    print(f"epoch {done}", flush=True)
"""


@pytest.fixture
def shared(tmp_path: Path) -> Generator[Path]:
    """A home of each test's own: they look into its run folders."""
    with home(tmp_path / "home") as made:
        yield made


@pytest.fixture
def way(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Road]:
    monkeypatch.setenv("CLOUDTRAIN_SANDBOX_DELAYS", f"grace={GRACE_S}")
    made = Road(tmp_path / "road", shared)
    (made.project / "train.py").write_text(COUNTING)
    yield made
    made.call("down", "--discard", "--stop-training", code=None)


def machine(way: Road) -> dict[str, Any]:
    found: dict[str, Any] = way.json("status")["result"]["machine"]
    return found


def lease(way: Road) -> dict[str, Any]:
    found: dict[str, Any] = way.json("status")["result"]["lease"]
    return found


def epoch_in(path: Path) -> int:
    with zipfile.ZipFile(path) as container:
        return int(container.read("epoch"))


def test_a_lease_of_a_minute_ends_without_the_laptop_and_nothing_is_lost(way: Road) -> None:
    run = way.start("run", "-y", "--max-hours", str(1 / 60))
    begun = time.monotonic()
    until(lambda: any((way.state / "home").glob("i-*/cloudtrain/*/sessions/001/secured")), timeout=50)
    os.killpg(run.pid, 9)
    run.communicate()
    (name,) = way.alive()
    disk = way.state / "home" / name
    ec2 = way.running.ec2

    def state() -> str:
        rows = ec2.describe_instances(InstanceIds=[name])["Reservations"]
        return str(rows[0].get("Instances", [{}])[0].get("State", {}).get("Name"))

    until(lambda: state() == "stopped", timeout=120)
    assert time.monotonic() - begun < 60 + GRACE_S + 25
    log = next(disk.glob("cloudtrain/*/sessions/001/train.log")).read_text()
    done = int(log.split()[-1])
    kept = max(epoch_in(path) for path in disk.glob("cloudtrain/*/secured/001/*.pt"))
    assert done - kept <= 6  # half a second each: what came between the notice and the end

    down = way.json("down")["result"]
    assert way.left() == []
    fetched = [Path(one["path"]) for one in down["artifacts"] if one["kind"] != "log"]
    best = max(epoch_in(path) for path in fetched if path.suffix == ".pt")
    assert best >= kept
    receipt = down["receipt"]
    assert receipt["ended_by"] == "deadline"
    assert receipt["leftovers"] == []
    assert 0 < receipt["parked_hours"] < receipt["hours"]
    record = next((way.home / "data" / "runs").glob("road-*/run.json")).read_text()
    assert '"ended": "' in record
    texts = [path.read_text() for path in (way.home / "data" / "runs").rglob("train.log")]
    assert texts
    assert not any("going on" in text for text in texts)  # the boot to fetch from trained nothing


def test_the_receipt_is_running_hours_at_the_full_price_and_the_rest_at_the_disks(way: Road) -> None:
    way.call("up", "-y", "--max-hours", str(30 / 3600))
    record = way.json("status")["result"]["record"]
    until(lambda: machine(way)["state"] == "stopped", timeout=90)
    receipt = way.json("down")["result"]["receipt"]
    ran = receipt["hours"] - receipt["parked_hours"]
    storage = record["volume_gb"] * 0.08 / 730
    expected = ran * record["price_hour"] + receipt["parked_hours"] * storage
    assert receipt["cost"] == pytest.approx(expected, rel=1e-6)
    assert receipt["parked_hours"] > 0


def test_extend_moves_the_deadline_that_the_machine_keeps(way: Road) -> None:
    way.call("up", "-y", "--max-hours", "0.5")
    before = datetime.fromisoformat(way.json("status")["result"]["record"]["deadline"])
    refused = way.call("extend", code=2)
    assert "how much" in refused.stderr
    way.call("extend", "--hours", "1", code=2)  # nobody is there to say yes
    done = way.json("extend", "--hours", "1", "-y")["result"]
    after = datetime.fromisoformat(done["until"])
    assert 3590 < (after - before).total_seconds() <= 3600
    assert done["cost"] == pytest.approx(done["price_hour"], rel=0.01)
    until(lambda: datetime.fromisoformat(lease(way)["until"]) == after)  # the guard's own word
    money = way.json("extend", "--cost", "1.5", "-y")["result"]
    assert money["cost"] == pytest.approx(1.5, rel=0.01)
    said = way.call("status").stdout
    assert "left, until" in said
    assert "at risk" in said


def test_extend_of_a_stopped_machine_lets_it_train_again(way: Road) -> None:
    way.call("up", "-y", "--max-hours", str(25 / 3600))
    until(lambda: machine(way)["state"] == "stopped", timeout=90)
    stopped = way.call("status").stdout
    assert "lease       ended" in stopped
    assert "cloudtrain extend" in stopped
    done = way.json("extend", "--hours", "1", "-y")["result"]
    assert done["state"] == "stopped"
    assert done["left_s"] == pytest.approx(3600, abs=10)
    way.call("start")
    until(lambda: way.json("status")["result"]["training"]["session"]["state"] == "running", timeout=60)
    log = way.call("logs", "--lines", "1000").stdout
    again = [int(line.split()[1]) for line in log.splitlines() if line.startswith("from ")]
    assert len(again) == 2
    assert again[1] > 0


def test_a_lease_that_nears_its_end_is_said_everywhere(way: Road) -> None:
    told = "notify: 'echo \"$CLOUDTRAIN_KIND: $CLOUDTRAIN_NOTICE\" >>$HOME/told'\n"
    config = way.project / "cloudtrain.yaml"
    config.write_text(config.read_text() + f"lease:\n  hours: 0.1\n  {told}")
    way.call("up", "-y")
    (name,) = way.alive()
    until(lambda: [one["kind"] for one in lease(way)["notices"]] == ["deadline-soon"])
    assert "the lease ends in 10 minutes or less" in way.call("status").stdout
    state = way.state / "home" / name / STATE
    assert (state / "notice.json").exists()
    assert "deadline-soon: the lease ends" in (way.state / "home" / name / "told").read_text()


def test_the_plan_holds_the_price_of_bringing_the_weights_home(way: Road) -> None:
    up = way.start("up", "--max-cost", "2")
    _, said = up.communicate(timeout=60)
    assert "at most 2.00 USD" in said
    assert "to bring the weights home" in said
    way.call("up", "-y", "--max-cost", "2")
    record = way.json("status")["result"]["record"]
    left = (datetime.fromisoformat(record["deadline"]) - datetime.now(UTC)).total_seconds() / 3600
    assert left * record["price_hour"] < 2 - 0.1
