"""The plan is pure: every case is one value in, one value out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config, Environment, Instance, Lease
from cloudtrain.models.machine import Machine, MachineState
from cloudtrain.models.plan import Image, Observation, Offer, Plan, Survey
from cloudtrain.provision.plan import Wanted, hourly, lease_hours, plan_up, rank, rescue_hours, volume_gb

NOW = datetime(2026, 1, 2, tzinfo=UTC)
IMAGE = Image("ami-1", "ubuntu", "ubuntu", "/dev/sda1", 8)
OFFER = Offer(
    type="g4dn.xlarge",
    market="on-demand",
    zones=("us-east-1a",),
    vcpus=4,
    memory_mib=16384,
    gpu_name="T4",
    gpu_count=1,
    gpu_memory_mib=16384,
    price_hour=0.526,
)


def machine(state: MachineState) -> Machine:
    return Machine("i-1", state, "g4dn.xlarge", "us-east-1a", "on-demand", "10.0.0.1", NOW)


def plan(config: Config, *machines: Machine, offers: tuple[Offer, ...] = (OFFER,), data: int = 0) -> Plan:
    survey = Survey("us-east-1", offers, IMAGE, "203.0.113.7")
    observed = Observation(machines, None, None)
    return plan_up(Wanted(config=config, survey=survey, observed=observed, dataset_bytes=data, now=NOW))


def test_a_first_up_names_every_change_and_its_price() -> None:
    made = plan(Config(lease=Lease(hours=10)))
    assert [action.kind for action in made.actions] == ["key-pair", "security-group", "launch"]
    assert "203.0.113.7/32" in made.actions[1].what
    assert made.price_hour == pytest.approx(0.526 + 28 * 0.08 / 730 + 0.005)
    assert made.rescue_hours == 2
    assert made.lease_cost == pytest.approx((made.price_hour or 0) * 12)  # and the way home
    assert made.deadline == NOW + timedelta(hours=10)


@pytest.mark.parametrize(
    ("state", "kinds"),
    [
        ("pending", []),
        ("running", []),
        ("stopped", ["start"]),
        ("stopping", ["start"]),
        ("terminated", ["key-pair", "security-group", "launch"]),
        ("shutting-down", ["key-pair", "security-group", "launch"]),
    ],
)
def test_what_is_there_decides_what_is_left_to_do(state: MachineState, kinds: list[str]) -> None:
    assert [action.kind for action in plan(Config(), machine(state)).actions] == kinds


def test_a_group_of_the_users_own_is_not_made() -> None:
    made = plan(Config(instance=Instance(security_group="sg-1")))
    assert [action.kind for action in made.actions] == ["key-pair", "launch"]


@pytest.mark.parametrize(
    ("given", "dataset", "expected"),
    [(None, 0, 28), (None, 10_000_000_000, 53), (60, 0, 60), (22, 0, 22)],
)
def test_the_volume_holds_image_environment_and_data(given: int | None, dataset: int, expected: int) -> None:
    assert volume_gb(Config(instance=Instance(volume_gb=given)), 8, dataset) == expected


def test_a_volume_too_small_is_refused_with_the_size_that_fits() -> None:
    with pytest.raises(UsageError) as caught:
        plan(Config(instance=Instance(volume_gb=20)), data=5_000_000_000)
    assert "20 GB is too small" in caught.value.message
    assert "32" in caught.value.hint


def test_an_existing_environment_wants_less() -> None:
    assert volume_gb(Config(environment=Environment(manager="existing")), 8, 0) == 20


def test_the_lease_is_the_earlier_of_hours_and_money() -> None:
    assert lease_hours(Config(lease=Lease(hours=10, cost=1.0)), 0.5) == 1.75  # and 15 minutes to fetch
    assert lease_hours(Config(lease=Lease(hours=1, cost=100.0)), 0.5) == 1
    assert lease_hours(Config(lease=Lease(hours=3, cost=1.0)), None) == 3


@pytest.mark.parametrize("cost", [0.1, 0.5, 2, 100])
def test_the_way_home_is_paid_from_the_same_money(cost: float) -> None:
    config = Config(lease=Lease(hours=1000, cost=cost))
    lease, rescue = lease_hours(config, 0.5), rescue_hours(config, 0.5)
    assert (lease + rescue) * 0.5 == pytest.approx(cost)
    assert 0 < rescue <= min(2, lease)


def test_unknown_prices_stop_nothing_and_are_said() -> None:
    made = plan(Config(lease=Lease(cost=5)), offers=(replace(OFFER, price_hour=None),))
    assert made.price_hour is None
    assert made.lease_cost is None
    assert any("lease.cost" in note for note in made.notes)
    assert hourly(None, 30) is None


def test_offers_are_tried_by_market_then_first_type_then_price() -> None:
    a = replace(OFFER, type="a", price_hour=3.0)
    b = replace(OFFER, type="b", price_hour=2.0)
    c = replace(OFFER, type="c", price_hour=1.0)
    assert [offer.type for offer in rank((a, b, c))] == ["a", "c", "b"]
    spot = [replace(offer, market="spot") for offer in (a, b)]
    ranked = rank((spot[0], a, spot[1], b))
    assert [(offer.type, offer.market) for offer in ranked] == [
        ("a", "spot"),
        ("b", "spot"),
        ("a", "on-demand"),
        ("b", "on-demand"),
    ]
