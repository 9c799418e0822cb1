"""Fixtures every test may use. Nothing here patches the code under test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.ssh.remote import Remote, connect
from tests.support.sshd import Sshd


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
