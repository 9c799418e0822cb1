"""The life of every instance: its states, which take time, and the machine behind it.

moto's record of an instance is the truth that calls read; only this module writes its
state. One thread moves an instance at a time, in the order in which it was asked.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.machines import Kind, Machine
from cloudtrain.sandbox.metadata import Notice
from cloudtrain.sandbox.seed import Seed
from cloudtrain.sandbox.state import Delays

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
Reason = tuple[str, str]
USER = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
OWN = ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
RECLAIMED = ("Server.SpotInstanceShutdown", "Server.SpotInstanceShutdown: Spot instance shutdown")
RECLAIMED_FOR_GOOD = (
    "Server.SpotInstanceTermination",
    "Server.SpotInstanceTermination: Spot instance termination",
)
"""Why an instance stopped or ended, as `StateReason` names it."""


@dataclass(slots=True)
class Life:
    """One instance: moto's record, its machine, and when a describe begins to see it."""

    record: Any
    seed: Seed
    visible_at: float
    region: str = ""
    machine: Machine | None = None
    why: Reason = ("", "")
    notice: Notice | None = None
    rebalance: datetime | None = None
    stoppable: bool = True
    moving: threading.Lock = field(default_factory=threading.Lock)

    @property
    def state(self) -> str:
        """The state as EC2 names it."""
        return str(self.record.state)

    @property
    def spot(self) -> bool:
        """Whether it was launched from a spot request."""
        return self.record.lifecycle == "spot"

    @property
    def alive(self) -> bool:
        """Whether it can still cost money."""
        return self.state != "terminated"


class Fleet:
    """All instances of all regions."""

    def __init__(self, emulator: Emulator, kind: Kind, delays: Delays) -> None:
        self.kind = kind
        self._emulator = emulator
        self._delays = delays
        self._lives: dict[str, Life] = {}
        self._closed = False
        self._listeners: list[Callable[[Life], None]] = []

    def listen(self, listener: Callable[[Life], None]) -> None:
        """Have `listener` called whenever an instance has come to run, stop or end."""
        self._listeners.append(listener)

    def adopt(self, record: Any, seed: Seed, region: str) -> Life:  # noqa: ANN401
        """Take a new record of moto's and start its machine."""
        life = Life(record, seed, time.monotonic() + self._delays.visible, region)
        self._set(life, "pending")
        self._lives[str(record.id)] = life
        self._move(life, self._boot)
        return life

    def get(self, instance_id: str) -> Life | None:
        """Return an instance, also one that a describe does not see yet."""
        return self._lives.get(instance_id)

    def lives(self) -> list[Life]:
        """Return all instances there ever were."""
        return list(self._lives.values())

    def hidden(self) -> set[str]:
        """Return the ids that a describe does not see yet."""
        now = time.monotonic()
        return {name for name, life in list(self._lives.items()) if life.visible_at > now}

    def alive(self) -> list[str]:
        """Return the ids of all instances that are not terminated."""
        return [name for name, life in list(self._lives.items()) if life.alive]

    def users_of(self, group_id: str) -> list[str]:
        """Return the living instances that are in a security group."""
        return [
            name
            for name, life in list(self._lives.items())
            if life.alive and any(group.id == group_id for group in life.record.security_groups)
        ]

    def start(self, life: Life) -> None:
        """Start a stopped instance."""
        life.record.start()
        life.why, life.notice, life.rebalance = ("", ""), None, None
        self._set(life, "pending")
        self._move(life, self._boot)

    def stop(self, life: Life, why: Reason = USER) -> None:
        """Stop a running instance; its disk stays."""
        life.record.stop()
        life.why = why
        self._set(life, "stopping", reason=why)
        self._move(life, self._halt)

    def terminate(self, life: Life, why: Reason = USER) -> None:
        """End an instance and delete its disk."""
        life.record.terminate()
        life.why = why
        self._set(life, "shutting-down", reason=why)
        self._move(life, self._destroy)

    def close(self) -> None:
        """End every machine at once; the fleet is of no use afterwards."""
        self._closed = True
        lives = list(self._lives.values())
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(_end_machine, lives))

    def _move(self, life: Life, step: Callable[[Life], None]) -> None:
        def work() -> None:
            with life.moving:
                try:
                    step(life)
                except (OSError, TimeoutError):
                    traceback.print_exc(file=sys.stderr)
                    self._fail(life)

        threading.Thread(target=work, daemon=True, name=f"move {life.record.id}").start()

    def _boot(self, life: Life) -> None:
        if self._closed or life.state != "pending":
            return
        end = time.monotonic() + self._delays.pending
        if life.machine is None:
            life.machine = self.kind.create(str(life.record.id), life.seed)
        address = life.machine.boot()
        _rest(end)
        with self._emulator.lock:
            if life.state == "pending":
                self._set(life, "running", address=address)
                self._settled(life)

    def _halt(self, life: Life) -> None:
        end = time.monotonic() + self._delays.stopping
        if life.machine is not None:
            life.machine.halt()
        _rest(end)
        with self._emulator.lock:
            if life.state == "stopping":
                self._set(life, "stopped", reason=life.why)
                self._settled(life)

    def _destroy(self, life: Life) -> None:
        end = time.monotonic() + self._delays.terminating
        if life.machine is not None:
            life.machine.destroy()
        _rest(end)
        with self._emulator.lock:
            self._set(life, "terminated", reason=life.why)
            self._settled(life)

    def _fail(self, life: Life) -> None:
        if life.machine is not None:
            try:
                life.machine.destroy()
            except (OSError, TimeoutError):
                traceback.print_exc(file=sys.stderr)
        with self._emulator.lock:
            life.record.terminate()
            code = "Server.InternalError"
            life.why = (code, f"{code}: the machine did not start")
            self._set(life, "terminated", reason=life.why)
            self._settled(life)

    def _settled(self, life: Life) -> None:
        for listener in self._listeners:
            listener(life)

    def _set(self, life: Life, state: str, *, address: str | None = None, reason: Reason = ("", "")) -> None:
        with self._emulator.lock:
            record = life.record
            record._state.name, record._state.code = state, CODES[state]  # noqa: SLF001
            record.state_reason.code, record.state_reason.message = reason
            for nic in record.nics.values():
                nic.delete_on_termination = True  # what EC2 does with the interface it made itself
                nic.public_ip = address


def _rest(end: float) -> None:
    time.sleep(max(0.0, end - time.monotonic()))


def _end_machine(life: Life) -> None:
    with life.moving:
        if life.machine is not None:
            life.machine.destroy()
