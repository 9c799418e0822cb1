"""A handful of interruptions in a row; `make soak` makes fifty, with a real YOLO training."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.soak import project, soak
from tests.support.road import Road, home

pytestmark = [pytest.mark.road, pytest.mark.timeout(600)]


@pytest.fixture
def way(tmp_path: Path) -> Generator[Road]:
    with home(tmp_path / "home") as folder:
        yield Road(tmp_path / "road", folder)


def test_a_handful_of_interruptions_loses_no_more_than_an_epoch_each(way: Road) -> None:
    project(way, yolo=False)
    done = soak(way, 6, seed=7, nspawn=False)
    assert done.lost == 0
    assert done.line().startswith("interruptions 6 lost 0 median-work-lost ")
    assert max(done.work) < 10
    way.call("down", "--stop-training")
    assert way.left() == []
