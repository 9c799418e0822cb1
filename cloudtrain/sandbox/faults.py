"""Faults on demand: a call is refused, cut off, kept waiting, or is its caller's last.

A test arms one or several by writing `faults.json` (one object or a list) into the state
folder, and each arming counts calls anew:

    {"at": 3, "when": "after", "kill": 4711}          end process group 4711 at the third call
    {"at": 1, "call": "RunInstances", "when": "after", "error": "InternalError"}
    {"at": 2, "times": 3, "reset": true}              connection reset at the second to the fourth
    {"at": 1, "call": "DescribeVpcs", "stall": 2.5}   answered late; `"stall": null` never

`when` is `before` (the default: the call takes no effect, or after a stall that ends) or
`after` (it does, and the answer is lost or late). `call` and `service` narrow what is
counted; without them every call is. `times` 0 means for ever. Nothing happens without
the file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from cloudtrain.sandbox.wire import Dropped, Forward, Reply, Request, failure

POLL_S = 0.1
STATUS = {
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
    "AuthFailure": 401,
    "ExpiredToken": 403,
}
"""The HTTP status that goes with a code where it is not 400; `status` says otherwise."""


class Faults:
    """The behaviour that comes before all others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._armed: tuple[int, int] = (0, 0)
        self._counts: dict[int, int] = {}

    def __call__(self, request: Request, forward: Forward) -> Reply:
        """Hand a call on, unless it is one that an armed fault names."""
        fault = self._due(request)
        if fault is None:
            return forward(request)
        reply = forward(request) if fault.get("when") == "after" else None
        if "kill" in fault:
            with suppress(ProcessLookupError):
                os.killpg(int(fault["kill"]), signal.SIGKILL)
            return reply or forward_nothing(request)
        if "stall" in fault:
            _stall(request, fault["stall"])
            return reply or forward(request)
        if fault.get("reset"):
            raise Dropped
        code = str(fault["error"])
        status = int(fault.get("status", STATUS.get(code, 400)))
        return failure(request, code, str(fault.get("message", "injected")), status)

    def _due(self, request: Request) -> dict[str, Any] | None:
        try:
            status = self._path.stat()
            armed = (status.st_mtime_ns, status.st_ino)
            read: object = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None
        faults = cast("list[dict[str, Any]]", read if isinstance(read, list) else [read])
        with self._lock:
            if armed != self._armed:
                self._armed, self._counts = armed, {}
            # Every one counts, also those behind the one that strikes.
            due = [fault for number, fault in enumerate(faults) if self._strikes(number, fault, request)]
        return due[0] if due else None

    def _strikes(self, number: int, fault: dict[str, Any], request: Request) -> bool:
        if fault.get("call", request.action) != request.action:
            return False
        if fault.get("service", request.service) != request.service:
            return False
        count = self._counts[number] = self._counts.get(number, 0) + 1
        first, times = int(fault.get("at", 1)), int(fault.get("times", 1))
        return count >= first and (times == 0 or count < first + times)


def forward_nothing(request: Request) -> Reply:
    """Return the answer that nobody reads: its caller was ended before the call took effect."""
    return failure(request, "ServiceUnavailable", "the caller is gone", 503)


def _stall(request: Request, seconds: float | None) -> None:
    """Wait for so long, or until the caller has hung up, which ends a stall without end."""
    end = float("inf") if seconds is None else time.monotonic() + float(seconds)
    while (left := end - time.monotonic()) > 0:
        if seconds is None and _hung_up(request):
            raise Dropped
        time.sleep(min(POLL_S, left))


def _hung_up(request: Request) -> bool:
    connection: socket.socket | None = request.environ.get("werkzeug.socket")
    if connection is None:
        return True
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
