"""Faults on demand: one call of a command's is refused, unanswered, or its last.

A test arms one by writing `faults.json` into the state folder, and each arming counts
calls anew:

    {"at": 3, "when": "after", "kill": 4711}          end process group 4711 at the third call
    {"at": 1, "call": "RunInstances", "when": "after", "error": "InternalError", "status": 500}

`when` is `before` (the call takes no effect) or `after` (it does, and the answer is
lost); without `call` every call counts. Nothing happens without the file.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloudtrain.sandbox.wire import Forward, Reply, Request, failure


class Faults:
    """The behaviour that comes before all others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._armed: int = 0
        self._count = 0

    def __call__(self, request: Request, forward: Forward) -> Reply:
        """Hand a call on, unless it is the one that the armed fault names."""
        fault = self._due(request)
        if fault is None:
            return forward(request)
        reply = forward(request) if fault.get("when") == "after" else None
        if "kill" in fault:
            with suppress(ProcessLookupError):
                os.killpg(int(fault["kill"]), signal.SIGKILL)
            return reply or forward_nothing(request)
        return failure(request, str(fault["error"]), "injected", int(fault.get("status", 400)))

    def _due(self, request: Request) -> dict[str, Any] | None:
        try:
            armed = self._path.stat().st_mtime_ns
            fault: dict[str, Any] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None
        if fault.get("call", request.action) != request.action:
            return None
        with self._lock:
            if armed != self._armed:
                self._armed, self._count = armed, 0
            self._count += 1
            return fault if self._count == int(fault["at"]) else None


def forward_nothing(request: Request) -> Reply:
    """Return the answer that nobody reads: its caller was ended before the call took effect."""
    return failure(request, "ServiceUnavailable", "the caller is gone", 503)
