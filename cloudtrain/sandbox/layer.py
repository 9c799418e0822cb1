"""The WSGI layer in front of moto: guard, log, behaviours, and only then moto.

`Behaviour` is the seam for everything that is to happen to calls: it sees one call and
a way to hand it on, and returns the reply. `first` behaviours see every call, before
the one of its own name: faults, throttling and denied rights belong there.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudtrain.sandbox.guard import Guard
from cloudtrain.sandbox.wire import Dropped, Forward, Reply, Request, error_code, failure, parse

Behaviour = Callable[[Request, Forward], Reply]
StartResponse = Callable[..., Any]
BODY_LIMIT = 1 << 20


class Layer:
    """The application that is served."""

    def __init__(
        self,
        guard: Guard,
        behaviours: Mapping[tuple[str, str], Behaviour],
        forward: Forward,
        calls: Sequence[Path],
        *,
        first: Iterable[Behaviour] = (),
    ) -> None:
        self._guard = guard
        self._behaviours = behaviours
        self._forward = forward
        self._first = tuple(first)
        self._calls = [path.open("ab", buffering=0) for path in calls]
        self._lock = threading.Lock()
        self._open = 0
        self._last = time.monotonic()

    @property
    def unused_s(self) -> float:
        """Seconds since the last call was answered; 0 while one is."""
        return 0.0 if self._open else time.monotonic() - self._last

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one HTTP request. Raises `ConnectionResetError` after it has cut one off."""
        try:
            reply = self._admitted(environ)
        except Dropped:
            _reset(environ)
            raise ConnectionResetError from None
        phrase = "OK" if reply.status < 400 else "Refused"
        headers = [*reply.headers, ("Content-Length", str(len(reply.body)))]
        start_response(f"{reply.status} {phrase}", headers)
        return [reply.body]

    def answer(self, request: Request) -> Reply:
        """Answer one call that has passed the guard."""
        own = self._behaviours.get((request.service, request.action))
        chain = [*self._first, *([own] if own else [])]
        return _hand_on(chain, self._forward)(request)

    def _admitted(self, environ: dict[str, Any]) -> Reply:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > BODY_LIMIT:
            return failure(None, "RequestEntityTooLarge", "the request is too large", 413)
        body: bytes = environ["wsgi.input"].read(length) if length else b""
        scope = self._guard.admit(environ, body)
        if scope is None:
            text = "this sandbox answers only to its own key and its own host name"
            return failure(None, "AuthFailure", text, 403)
        request = parse(*scope, body, environ)
        status, code = 0, "reset"
        try:
            with self._counted():
                reply = self.answer(request)
            status, code = reply.status, error_code(reply)
        finally:
            self._record(request, status, code)
        return reply

    @contextmanager
    def _counted(self) -> Generator[None]:
        with self._lock:
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                self._last = time.monotonic()

    def _record(self, request: Request, status: int, code: str) -> None:
        row = {
            "time": round(time.time(), 3),
            "service": request.service,
            "call": request.action,
            "region": request.region,
            "status": status,
            "error": code,
        }
        line = json.dumps(row).encode() + b"\n"
        for file in self._calls:
            file.write(line)  # one write(2) with O_APPEND: several sandboxes may share a file


def _reset(environ: Mapping[str, Any]) -> None:
    """Close a connection so that the other end reads a reset, not an orderly end."""
    connection: socket.socket | None = environ.get("werkzeug.socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())  # the server would say goodbye first


def _hand_on(chain: list[Behaviour], forward: Forward) -> Forward:
    for behaviour in reversed(chain):
        forward = _bound(behaviour, forward)
    return forward


def _bound(behaviour: Behaviour, forward: Forward) -> Forward:
    return lambda request: behaviour(request, forward)
