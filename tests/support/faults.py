"""Arming the sandbox's faults, and ending a command at its n-th call to the cloud."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.road import Road


@dataclass(frozen=True)
class Ended:
    """How a command that was to be killed ended; `reached` is False when it made fewer calls."""

    reached: bool
    code: int
    said: str


def arm(way: Road, **fault: Any) -> None:
    """Arm one fault; the file is replaced whole, so that no call reads half of it."""
    path = way.state / "faults.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(fault))
    part.replace(path)


def disarm(way: Road) -> None:
    """Let everything through again."""
    (way.state / "faults.json").unlink(missing_ok=True)


def kill_at(way: Road, at: int, when: str, *command: str) -> Ended:
    """Run a command and SIGKILL it before or after its `at`-th call took effect."""
    gate = Path(way.project / ".gate")
    os.mkfifo(gate)
    try:
        process = way.start(*command, gate=gate)
        arm(way, at=at, when=when, kill=process.pid)
        gate.write_text("go\n")
        _, said = process.communicate(timeout=120)
    finally:
        disarm(way)
        gate.unlink()
    return Ended(process.returncode == -9, process.returncode, said)
