"""What the sandbox's tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

UBUNTU = "ami-5a4db0c5000002404"
DELAYS = "visible=0.15,pending=0.3,stopping=0.2,terminating=0.2,idle=60"
BOTO = Config(retries={"total_max_attempts": 1, "mode": "standard"}, read_timeout=20)


def until(condition: Callable[[], bool], what: str, *, timeout: float = 60) -> None:
    """Wait for something another process does; there is no event to wait for across it."""
    end, pause = time.monotonic() + timeout, 0.02
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(pause)
        pause = min(1.3 * pause, 0.25)  # asking often slows what is waited for


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
