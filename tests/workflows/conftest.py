"""A sandbox for each module, and a project on it for each test."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.faults import disarm
from tests.support.road import Road, home


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """One sandbox for the module: it starts once, every test has a project of its own."""
    with home(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def way(tmp_path: Path, shared: Path) -> Generator[Road]:
    """A project of a test's own; what it rented ends with it."""
    made = Road(tmp_path / "road", shared)
    yield made
    disarm(made)
    made.call("down", "--discard", "--stop-training", code=None)
