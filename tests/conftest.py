"""Fixtures every test may use. Nothing here patches the code under test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.ssh.remote import Remote, connect
from tests.support.sshd import Sshd

SLOW = (
    "bootstrap/test_bare.py",
    "workflows/test_road.py",
    "workflows/test_crash.py",
    "workflows/test_bake.py",
    "workflows/test_lease.py",
    "workflows/test_fault_sweep.py",
    "workflows/test_spot.py",
    "workflows/test_crash_sweep.py",
    "guard/test_machine.py",
    "workflows/test_spot_unattended.py",
    "workflows/test_two_at_once.py",
    "transfer/test_cuts.py",
    "workflows/test_soak.py",
    "workflows/test_yolo_road.py",
    "workflows/test_own_hosts_password.py",
    "workflows/test_park.py",
    "transfer/test_scale.py",
)
"""The longest files first: beside each other, the last to end would be one of these."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first; what is left keeps its order."""

    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((number for number, name in enumerate(SLOW) if path.endswith(name)), len(SLOW))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Keep every test out of the developer's folders, account and agent."""
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "cloudtrain-home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name in list(os.environ):
        if (
            name.startswith(
                (
                    "AWS_ACCESS",
                    "AWS_SECRET",
                    "AWS_SESSION",
                    "AWS_PROFILE",
                    "AWS_REGION",
                    "AWS_DEFAULT",
                    "AWS_ENDPOINT",
                    "SSH_AUTH_SOCK",
                    "NO_COLOR",
                    "CLOUDTRAIN_",
                )
            )
            and name != "CLOUDTRAIN_HOME"
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A real OpenSSH server whose user has a HOME of its own."""
    server = Sshd(tmp_path / "machine").start()
    yield server
    server.stop()


@pytest.fixture
def remote(sshd: Sshd) -> Iterator[Remote]:
    """A verified connection to `sshd`."""
    with connect(sshd.target) as connected:
        yield connected
