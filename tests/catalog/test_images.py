"""ami/images.yaml, which both providers and users read."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
import yaml

from cloudtrain.paths import shipped

CATALOG: dict[str, Any] = yaml.safe_load((shipped("ami") / "images.yaml").read_text())
IMAGES: dict[str, dict[str, str]] = CATALOG["images"]
NAMES = {
    "ubuntu-24.04": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260901",
    "ubuntu-22.04": "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20260901",
    "dlami": "Deep Learning Base AMI with Single CUDA (Ubuntu 22.04) 20260901",
}


def test_aliases_lead_somewhere() -> None:
    assert CATALOG["aliases"]["auto"] in IMAGES
    assert set(CATALOG["aliases"].values()) <= set(IMAGES)


@pytest.mark.parametrize("name", IMAGES)
def test_each_says_all_that_is_needed(name: str) -> None:
    image = IMAGES[name]
    assert image["parameter"].startswith("/aws/service/")
    assert image["user"] == "ubuntu"
    assert set(CATALOG["owners"][image["owner"]]) == {"aws", "aws-cn"}
    assert fnmatch.fnmatch(NAMES[name], image["pattern"])


def test_account_ids_are_text() -> None:
    # As a number, an account's leading zero would be lost.
    assert all(isinstance(owner, str) for by in CATALOG["owners"].values() for owner in by.values())
