"""The receipt: what each machine of a run cost, whatever of it can still be seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.journal.folder import RunFolder, create
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Observation
from cloudtrain.providers.aws.machines import to_machine
from cloudtrain.provision.end import receipt
from cloudtrain.provision.plan import storage_hour

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def row(folder: RunFolder, event: str, at: datetime, **values: Any) -> None:
    folder.journal.append(event, **values)
    text = folder.journal.path.read_text().splitlines()
    stamp = text[-1].split('"at": "')[1].split('"')[0]
    text[-1] = text[-1].replace(stamp, at.isoformat())
    folder.journal.path.write_text("\n".join(text) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = create(name="helmets", owner="me", provider="aws", region="us-east-1", project=tmp_path)
    made.update(price_hour=9.0, volume_gb=20)
    return made


def launched(folder: RunFolder, machine: str, at: datetime, price: float | None) -> None:
    values = {"type": "t", "zone": None, "market": "spot", "price_hour": price, "volume_gb": 20}
    row(folder, "attempt", at, token=f"of-{machine}", **values)
    row(folder, "launched", at, token=f"of-{machine}", machine=machine)


def seen(machine: str, since: datetime, state: Any = "running") -> Observation:
    one = Machine(machine, state, "t", "z", "spot", None, since)
    return Observation((one,), None, None)


def test_a_machine_that_is_forgotten_counts_at_its_own_price(folder: RunFolder) -> None:
    launched(folder, "i-1", ago(10), 1.0)
    row(folder, "terminated", ago(3), machines=["i-1"])
    launched(folder, "i-2", ago(1), 0.5)
    spent = receipt(folder, seen("i-2", ago(1)), NOW)
    assert spent.hours == pytest.approx(8)
    assert spent.cost == pytest.approx(7 * 1.0 + 1 * 0.5)


def test_a_machine_that_ended_and_still_shows_counts_to_its_end(folder: RunFolder) -> None:
    launched(folder, "i-1", ago(10), 1.0)
    row(folder, "terminated", ago(8), machines=["i-1"])
    assert receipt(folder, seen("i-1", ago(10), "terminated"), NOW).cost == pytest.approx(2)


def test_a_launch_time_that_moved_to_the_last_start_makes_no_negative_bill(folder: RunFolder) -> None:
    launched(folder, "i-1", ago(14), 1.0)
    row(folder, "stopped", ago(12), machine="i-1")
    row(folder, "start", ago(0.5), machine="i-1")
    spent = receipt(folder, seen("i-1", ago(0.5)), NOW)
    assert spent.hours == pytest.approx(14)
    assert spent.parked_hours == pytest.approx(11.5)
    assert spent.cost == pytest.approx(2.5 * 1.0 + 11.5 * storage_hour(20))


def test_an_adopted_machine_counts_from_when_the_cloud_saw_it(folder: RunFolder) -> None:
    assert receipt(folder, seen("i-7", ago(2)), NOW).cost == pytest.approx(18)


def test_a_price_that_is_not_known_makes_the_sum_not_known(folder: RunFolder) -> None:
    launched(folder, "i-1", ago(1), None)
    assert receipt(folder, seen("i-1", ago(1)), NOW).cost is None


def test_a_machine_is_as_old_as_its_root_disk() -> None:
    disk = {"Ebs": {"AttachTime": ago(14)}}
    found = to_machine({"InstanceId": "i-1", "LaunchTime": ago(1), "BlockDeviceMappings": [disk]})
    assert found.launched == ago(14)
