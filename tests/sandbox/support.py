"""What the sandbox's tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support import road

UBUNTU = "ami-5a4db0c5000002404"
DELAYS = "visible=0.15,pending=0.3,stopping=0.2,terminating=0.2,idle=60"
BOTO = Config(retries={"total_max_attempts": 1, "mode": "standard"}, read_timeout=20)


def until(condition: Callable[[], bool], what: str, *, timeout: float = 60) -> None:
    """Wait as the road does, with a word for what is missing."""
    road.until(condition, what, timeout=timeout)


def refused(code: str, call: Callable[..., Any], **params: Any) -> None:
    """Check that a call fails with exactly this code."""
    with pytest.raises(ClientError) as error:
        call(**params)
    assert error.value.response.get("Error", {}).get("Code") == code, error.value


def processes_with(text: str) -> list[str]:
    """Return every living process whose environment or command line holds `text`."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            seen = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in seen:
            found.append(entry.name)
    return found
