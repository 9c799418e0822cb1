"""`cloudtrain quota`: the right code for type and market, what is used, asking for more."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.errors import CloudError
from cloudtrain.providers.aws.quotas import code_for
from tests.support.road import Road, home


@pytest.fixture
def way(tmp_path: Path) -> Generator[Road]:
    with home(tmp_path / "home") as made:
        yield Road(tmp_path / "road", made)


def allow(way: Road, **quotas: float) -> None:
    way.state.mkdir(parents=True, exist_ok=True)
    codes = {code.replace("_", "-"): value for code, value in quotas.items()}
    (way.state / "account.json").write_text(json.dumps({"quotas": codes}))


@pytest.mark.parametrize(
    ("name", "market", "code"),
    [
        ("g4dn.xlarge", "on-demand", "L-DB2E81BA"),
        ("g4dn.xlarge", "spot", "L-3819A6DF"),
        ("g6e.12xlarge", "on-demand", "L-DB2E81BA"),
        ("gr6.4xlarge", "spot", "L-3819A6DF"),
        ("g7e.2xlarge", "on-demand", "L-DB2E81BA"),
        ("vt1.3xlarge", "on-demand", "L-DB2E81BA"),
        ("p3.2xlarge", "on-demand", "L-417A185B"),
        ("p3dn.24xlarge", "spot", "L-7212CCBC"),
        ("p4de.24xlarge", "spot", "L-7212CCBC"),
        ("p5.48xlarge", "spot", "L-C4BD4855"),
        ("p5en.48xlarge", "spot", "L-C4BD4855"),
        ("p5.48xlarge", "on-demand", "L-417A185B"),
        ("t3.micro", "on-demand", "L-1216C47A"),
        ("m7i-flex.large", "spot", "L-34B43A08"),
    ],
)
def test_each_type_and_market_has_its_own_quota(name: str, market: Any, code: str) -> None:
    assert code_for(name, market).code == code


def test_a_family_without_a_known_quota_is_said_to_be() -> None:
    with pytest.raises(CloudError, match="not known here"):
        code_for("p6-b200.48xlarge", "spot")


def test_what_is_allowed_used_and_needed(way: Road) -> None:
    allow(way, L_DB2E81BA=4)
    row = way.json("quota")["result"]["rows"][0]
    assert (row["code"], row["allowed"], row["used"], row["needed"]) == ("L-DB2E81BA", 4, 0, 4)
    text = way.call("quota", "--type", "g4dn.2xlarge").stdout
    assert "NO" in text
    assert "cloudtrain quota --type g4dn.2xlarge --market on-demand --request 8" in text


def test_both_markets_are_shown_where_both_are_wanted(way: Road) -> None:
    rows = way.json("quota", "--market", "spot-then-on-demand")["result"]["rows"]
    assert [row["code"] for row in rows] == ["L-3819A6DF", "L-DB2E81BA"]


def test_asking_for_more_says_what_comes_next_and_is_asked_once(way: Road) -> None:
    allow(way, L_3819A6DF=0)
    said = way.call("quota", "--type", "g5.xlarge", "--market", "spot", "--request", "8").stdout
    assert "asked for 8 vCPUs of L-3819A6DF: " in said
    assert "hours to three days" in said
    again = way.call("quota", "--type", "g5.xlarge", "--market", "spot", "--request", "8", code=3)
    assert "ResourceAlreadyExistsException" in again.stderr
    assert (
        "have been asked for already" in way.call("quota", "--type", "g5.xlarge", "--market", "spot").stdout
    )


def test_it_must_be_clear_which_quota_is_meant(way: Road) -> None:
    done = way.call("quota", "--market", "spot-then-on-demand", "--request", "8", code=2)
    assert "which quota is meant is not clear" in done.stderr
