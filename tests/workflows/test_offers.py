"""`cloudtrain offers`, as a user calls it, against the emulated cloud."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.road import Road, home


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    with home(tmp_path_factory.mktemp("home")) as made:
        # The first question for every type takes the emulated cloud seconds; later ones do not.
        Road(made.parent / "first", made).call("offers")
        yield made


@pytest.fixture
def way(tmp_path: Path, shared: Path) -> Road:
    return Road(tmp_path / "road", shared)


def test_offers_are_filtered_priced_and_sorted(way: Road) -> None:
    rows = way.json("offers", "--gpu", "t4", "--max-price", "1.3")["result"]["rows"]
    assert {row["offer"]["gpu_name"] for row in rows} == {"T4"}
    hours = [row["hour"] for row in rows]
    assert hours == sorted(hours)
    assert max(hours) <= 1.3
    assert {row["offer"]["market"] for row in rows} == {"spot", "on-demand"}


def test_the_lease_is_what_the_configuration_says(way: Road) -> None:
    (way.project / "cloudtrain.yaml").write_text(
        "provider: sandbox\ntrain: {kind: script, command: python3 train.py}\n"
        "lease: {hours: 10}\ninstance: {volume_gb: 73}\n"
    )
    found = way.json("offers", "--gpu", "T4", "--market", "on-demand", "--gpu-memory", "16")["result"]
    row = next(row for row in found["rows"] if row["offer"]["type"] == "g4dn.xlarge")
    assert row["hour"] == pytest.approx(0.526 + 73 * 0.08 / 730 + 0.005)
    assert row["lease"] == pytest.approx(row["hour"] * 12)  # ten, and two to bring the weights home
    assert all(row["offer"]["market"] == "on-demand" for row in found["rows"])


def test_a_lease_in_money_is_never_exceeded(way: Road) -> None:
    way.env["CLOUDTRAIN_LEASE_COST"] = "2"
    rows = way.json("offers", "--gpu", "L4")["result"]["rows"]
    assert all(row["lease"] <= 2.0001 for row in rows if row["lease"] is not None)


def test_spot_names_each_zone_with_its_price_cheapest_first(way: Road) -> None:
    rows = way.json("offers", "--gpu", "T4", "--market", "spot")["result"]["rows"]
    offer = next(row["offer"] for row in rows if row["offer"]["type"] == "g4dn.xlarge")
    prices = [one["price_hour"] for one in offer["zone_prices"]]
    assert prices == sorted(prices)
    assert len(set(prices)) > 1
    assert offer["price_hour"] == prices[0]
    assert offer["zones"][0] == offer["zone_prices"][0]["zone"]


def test_the_price_list_is_asked_first(way: Road) -> None:
    config = way.project / "cloudtrain.yaml"
    config.write_text(config.read_text() + "region: us-east-1\n")
    rows = way.json("offers", "--gpu", "T4", "--market", "on-demand")["result"]["rows"]
    assert rows[0]["offer"]["price_hour"] == pytest.approx(0.526)
    assert rows[0]["offer"]["price_source"] == "api"


def test_the_table_reads_well_without_a_terminal(way: Road) -> None:
    lines = way.call("offers", "--gpu", "T4").stdout.splitlines()
    assert lines[0].split()[:2] == ["TYPE", "GPU"]
    column = lines[0].index("MARKET")
    rows = [line for line in lines[1:] if line.startswith("g4dn")]
    assert rows
    assert all(line[column:].startswith(("spot", "on-demand")) for line in rows)
    assert not any("\x1b" in line for line in lines)


def test_nothing_that_fits_is_said_plainly(way: Road) -> None:
    assert "nothing in us-east-1 fits" in way.call("offers", "--gpu", "Voodoo").stdout


def test_a_market_that_does_not_exist_is_a_usage_error(way: Road) -> None:
    done = way.call("offers", "--market", "black", code=2)
    assert "there is no market `black`" in done.stderr
