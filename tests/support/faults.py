"""Arming the sandbox's knobs: faults, limits and reclaims; and ending a command at its n-th call."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.road import Road


class Stateful(Protocol):
    """Whatever knows the state folder of a sandbox."""

    @property
    def state(self) -> Path: ...


@dataclass(frozen=True)
class Ended:
    """How a command that was to be killed ended; `reached` is False when it made fewer calls."""

    reached: bool
    code: int
    said: str


def put(way: Stateful, name: str, value: object) -> None:
    """Replace a knob's file whole, so that no call reads half of it."""
    path = way.state / name
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.replace(path)


def arm(way: Stateful, **fault: Any) -> None:
    """Arm one fault; `cloudtrain/sandbox/faults.py` lists what it may say."""
    put(way, "faults.json", fault)


def arm_all(way: Stateful, *faults: dict[str, Any]) -> None:
    """Arm several faults, each with a count of its own."""
    put(way, "faults.json", faults)


def disarm(way: Stateful) -> None:
    """Let everything through again."""
    (way.state / "faults.json").unlink(missing_ok=True)


def account(way: Stateful, **settings: Any) -> None:
    """Set quotas and capacity (`cloudtrain/sandbox/account.py`); without any, all is generous."""
    put(way, "account.json", settings)


def reclaim(way: Stateful, *instances: str, notice_s: float = 120) -> None:
    """Let EC2 take the capacity of these spot instances, after a notice."""
    put(way, "spot.json", {"reclaimed": instances, "notice_s": notice_s})


def recommend(way: Stateful, *instances: str) -> None:
    """Give these spot instances a rebalance recommendation, and reclaim none."""
    put(way, "spot.json", {"rebalance": instances})


def give_back(way: Stateful) -> None:
    """Let there be capacity for every spot instance again: EC2 starts what it stopped."""
    put(way, "spot.json", {})


def calls(way: Stateful) -> list[dict[str, Any]]:
    """Return every call that reached the sandbox: service, call, region, status, error."""
    path = way.state / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_at(way: Road, at: int, when: str, *command: str, call: str | None = None) -> Ended:
    """Run a command and SIGKILL it before or after its `at`-th call (of one kind) took effect."""
    gate = Path(way.project / ".gate")
    os.mkfifo(gate)
    try:
        process = way.start(*command, gate=gate)
        arm(way, at=at, when=when, kill=process.pid, **({"call": call} if call else {}))
        gate.write_text("go\n")
        _, said = process.communicate(timeout=120)
    finally:
        disarm(way)
        gate.unlink()
    return Ended(process.returncode == -9, process.returncode, said)
