"""A sandbox of a test's own: its state in a temporary folder, ended with the test."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cloudtrain.providers import sandbox
from cloudtrain.providers.aws.client import Settings
from cloudtrain.providers.aws.provider import AwsProvider


@dataclass(frozen=True)
class Running:
    """A started sandbox."""

    endpoint: sandbox.Endpoint
    state: Path

    def provider(self) -> AwsProvider:
        """A provider as `wiring` makes it."""
        end = self.endpoint
        return AwsProvider(
            Settings(
                name="sandbox",
                region=end.region,
                endpoint=end.url,
                access_key=end.access_key,
                secret_key=end.secret_key,
                ssh_port=end.ssh_port,
                ssh_user=end.login_user,
                ingress="127.0.0.1",
            )
        )

    @property
    def ec2(self) -> Any:
        """A client to ask the emulated EC2 directly; one for all, for making one is a fifth of a second's work."""
        return _ec2(self)

    def calls(self) -> list[str]:
        """The names of all API calls it answered so far."""
        path = self.state / "calls.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [str(row.get("call") or row.get("action") or row.get("operation")) for row in rows]


@cache
def _ec2(running: Running) -> Any:
    return running.provider().clients.ec2


@contextmanager
def started(state: Path) -> Generator[Running]:
    """Start a sandbox with its state in `state`, and end it with everything in it."""
    try:
        yield Running(sandbox.ensure(state), state)
    finally:
        sandbox.stop(state)
