"""Spot requests: their states, and what EC2 does by itself.

States and status codes are those of AWS's page "State changes for a Spot request".
What moves a request: a user's call (`spot_calls.py`), an instance that came to run,
stop or end (`settled`), and `spot.json` in the state folder, read anew when it changes:

    {"reclaimed": ["i-…"], "rebalance": ["i-…"], "notice_s": 120}

An instance that is listed as reclaimed gets its notice and is then stopped or ended; a
stopped one that is no longer listed is started again by EC2 itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cloudtrain.sandbox.account import Account
from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.fleet import RECLAIMED, RECLAIMED_FOR_GOOD, Fleet, Life
from cloudtrain.sandbox.metadata import Notice
from cloudtrain.sandbox.state import Delays
from cloudtrain.sandbox.wire import Reply, Request

TICK_S = 0.1
LIVING = ("open", "active", "disabled")
MESSAGES = {
    "pending-evaluation": "Your Spot request has been submitted for review, and is pending evaluation.",
    "capacity-not-available": "There is no Spot capacity available that matches your request.",
    "fulfilled": "Your Spot request is fulfilled.",
    "marked-for-stop": "The Spot Instance is marked for stopping.",
    "instance-stopped-by-user": "Your Spot instance was stopped by user action.",
    "instance-stopped-no-capacity": "Your Spot instance was stopped because there is no Spot capacity available.",
    "instance-terminated-by-user": "Your Spot instance was terminated by user action.",
    "instance-terminated-no-capacity": "Your Spot instance was terminated because there is no Spot capacity available.",
    "request-canceled-and-instance-running": "Your Spot request is canceled, but your instance is still running.",
    "canceled-before-fulfillment": "Your Spot request is canceled before it was fulfilled.",
}
Relaunch = Callable[[Request], tuple[Reply, tuple[str, ...]]]


@dataclass(slots=True)
class SpotRequest:
    """One request. `launch` is the RunInstances that made it, without its token."""

    id: str
    launch: Request
    persistent: bool
    behaviour: str
    price: str
    visible_at: float
    created: datetime
    zone: str
    state: str = "active"
    code: str = "fulfilled"
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))
    instance: str | None = None
    due: float = 0.0

    @property
    def message(self) -> str:
        """The text beside the status code."""
        return MESSAGES[self.code]

    def become(self, state: str, code: str) -> None:
        """Go to another state."""
        self.state, self.code, self.updated = state, code, datetime.now(UTC)


class Spot:
    """All spot requests of all regions. What is called from outside takes moto's lock."""

    def __init__(
        self,
        emulator: Emulator,
        fleet: Fleet,
        account: Account,
        delays: Delays,
        knob: Path,
        relaunch: Relaunch,
    ) -> None:
        self._emulator = emulator
        self._fleet = fleet
        self._account = account
        self._delays = delays
        self._knob = knob
        self._relaunch = relaunch
        self._requests: dict[str, SpotRequest] = {}
        self._ended = threading.Event()
        fleet.listen(self.settled)
        threading.Thread(target=self._run, daemon=True, name="spot").start()

    def in_region(self, region: str) -> list[SpotRequest]:
        """Return the requests of a region that a describe sees."""
        now = time.monotonic()
        return [
            one
            for one in list(self._requests.values())
            if one.launch.region == region and one.visible_at <= now
        ]

    def get(self, request_id: str, region: str) -> SpotRequest | None:
        """Return one request."""
        found = self._requests.get(request_id)
        return found if found is not None and found.launch.region == region else None

    def add(self, request: SpotRequest, tags: dict[str, str], life: Life | None) -> None:
        """Take a new request, with its instance if it was fulfilled at once."""
        self._requests[request.id] = request
        if tags:
            self._emulator.ec2(request.launch.region).create_tags([request.id], tags)
        if life is not None:
            self.bind(request, life)

    def bind(self, request: SpotRequest, life: Life) -> None:
        """Let a request be fulfilled by an instance."""
        request.instance, request.zone = str(life.record.id), str(life.record.availability_zone)
        life.record.spot_instance_request_id = request.id
        life.stoppable = request.persistent
        request.become("active", "fulfilled")

    def tags(self, request: SpotRequest) -> dict[str, str]:
        """Return the tags of a request as they are now."""
        backend = self._emulator.ec2(request.launch.region)
        rows = backend.describe_tags(filters={"resource-id": [request.id]})
        return {str(row["key"]): str(row["value"]) for row in rows}

    def of(self, life: Life) -> SpotRequest | None:
        """Return the request that an instance fulfils; None for one of the past and on demand."""
        found = self._requests.get(getattr(life.record, "spot_instance_request_id", "") or "")
        return found if found is not None and found.instance == str(life.record.id) else None

    def life(self, request: SpotRequest) -> Life | None:
        """Return the instance that fulfils a request, or the last one that did."""
        return self._fleet.get(request.instance) if request.instance else None

    def cancel(self, request: SpotRequest) -> None:
        """Cancel: an instance that runs goes on, one that is stopped is ended."""
        if request.state not in LIVING:
            return
        life = self.life(request)
        if life is None or not life.alive:
            request.become("cancelled", "canceled-before-fulfillment")
            return
        life.stoppable = False
        if life.state in ("stopping", "stopped"):
            request.become("cancelled", "instance-terminated-by-user")
            self._fleet.terminate(life)
        else:
            request.become("cancelled", "request-canceled-and-instance-running")

    def settled(self, life: Life) -> None:
        """Follow an instance that came to run, to stop or to its end."""
        request = self.of(life) if life.spot else None
        if request is None:
            return
        reclaimed = life.why in (RECLAIMED, RECLAIMED_FOR_GOOD)
        if request.state == "cancelled":
            if life.state == "terminated":
                request.become("cancelled", "instance-terminated-by-user")
        elif life.state == "running":
            request.become("active", "fulfilled")
        elif life.state == "stopped":
            cause = "no-capacity" if reclaimed else "by-user"
            request.become("disabled", f"instance-stopped-{cause}")
            request.due = time.monotonic() + self._delays.restore
        elif life.state == "terminated":
            cause = "no-capacity" if reclaimed else "by-user"
            request.become("open" if request.persistent else "closed", f"instance-terminated-{cause}")
            request.due = time.monotonic() + self._delays.relaunch

    def close(self) -> None:
        """Do nothing by itself any more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(TICK_S):
            if self._requests:
                with self._emulator.lock:
                    self._tick()

    def _tick(self) -> None:
        knob = _read(self._knob)
        reclaimed = set[str](knob.get("reclaimed", []))
        rebalance = set[str](knob.get("rebalance", []))
        notice_s = float(knob.get("notice_s", self._delays.notice))
        for request in list(self._requests.values()):
            life = self.life(request)
            if life is None or not life.alive:
                if request.state == "open":
                    self._fulfil(request)
            elif life.state == "running":
                name = str(life.record.id)
                if name in rebalance | reclaimed and life.rebalance is None:
                    life.rebalance = datetime.now(UTC)
                self._interrupt(request, life, name in reclaimed, notice_s)
            elif life.state == "stopped":
                self._restore(request, life, reclaimed)

    def _interrupt(self, request: SpotRequest, life: Life, listed: bool, notice_s: float) -> None:
        now = datetime.now(UTC)
        if life.notice is None:
            if not listed:
                return
            action = request.behaviour if request.state == "active" else "terminate"
            life.notice = Notice(action, now + timedelta(seconds=notice_s))
            if request.state == "active" and request.behaviour == "stop":
                request.become("active", "marked-for-stop")
            elif request.state == "active":
                request.become("closed", "instance-terminated-no-capacity")
        if now >= life.notice.at:
            if life.notice.action == "stop" and request.state == "active":
                self._fleet.stop(life, RECLAIMED)
            else:
                self._fleet.terminate(life, RECLAIMED_FOR_GOOD)

    def _restore(self, request: SpotRequest, life: Life, reclaimed: set[str]) -> None:
        if request.code != "instance-stopped-no-capacity" or request.due > time.monotonic():
            return
        type_name, zone = str(life.record.instance_type), str(life.record.availability_zone)
        if str(life.record.id) not in reclaimed and self._account.has_room(zone, type_name, "spot"):
            self._fleet.start(life)

    def _fulfil(self, request: SpotRequest) -> None:
        if request.due > time.monotonic():
            return
        request.due = time.monotonic() + self._delays.relaunch
        reply, ids = self._relaunch(with_tags(request.launch, self.tags(request)))
        life = self._fleet.get(ids[0]) if ids else None
        if life is not None:
            self.bind(request, life)
        elif reply.status != 200:
            request.become("open", "capacity-not-available")


def with_tags(launch: Request, tags: dict[str, str]) -> Request:
    """Return a launch whose instance gets other tags: those of the request it is made for."""
    gone = {
        name.removesuffix(".ResourceType")
        for name, value in launch.params.items()
        if name.endswith(".ResourceType") and value in ("instance", "spot-instances-request")
    }
    params = {k: v for k, v in launch.params.items() if not k.startswith(tuple(f"{one}." for one in gone))}
    if tags:
        prefix = min(gone, default="TagSpecification.9")
        params[f"{prefix}.ResourceType"] = "instance"
        for number, (key, value) in enumerate(tags.items(), 1):
            params |= {f"{prefix}.Tag.{number}.Key": key, f"{prefix}.Tag.{number}.Value": value}
    return launch.with_params(params)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
