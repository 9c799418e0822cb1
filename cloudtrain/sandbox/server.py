"""One sandbox from start to end: bind, say where, serve, watch, and leave nothing.

It ends on SIGTERM, and by itself a while after its last living instance and the last
moment somebody wanted it. Deciding to end takes the same lock as finding a running
sandbox, so that nobody is handed one that is about to go.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtrain import __version__
from cloudtrain.errors import CloudtrainError
from cloudtrain.sandbox import kinds, prices, regions, services
from cloudtrain.sandbox.account import Account
from cloudtrain.sandbox.baked import Baked
from cloudtrain.sandbox.connect import Connect
from cloudtrain.sandbox.ec2 import Ec2
from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.faults import Faults
from cloudtrain.sandbox.fleet import Fleet
from cloudtrain.sandbox.guard import Guard
from cloudtrain.sandbox.launches import Launches
from cloudtrain.sandbox.layer import Layer
from cloudtrain.sandbox.machines import Kind
from cloudtrain.sandbox.quotas import Quotas
from cloudtrain.sandbox.state import Delays, State
from cloudtrain.sandbox.world import Surrounding

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

REGION = "us-east-1"


def serve(state: State, ready_fd: int | None) -> int:
    """Serve until told to end. `ready_fd` gets one JSON line: ready, or why not."""
    lock = state.serve_alone()
    if lock is None:
        _tell(ready_fd, {"ready": True})
        return 0
    try:
        state.prepare()
        kinds.reap(state)
        machines = os.environ.get(kinds.VARIABLE) or "process"
        kind = kinds.kind_of(state, machines)
    except CloudtrainError as error:
        _tell(ready_fd, {"error": error.message, "hint": error.hint})
        return error.exit_code
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: ended.set())
    emulator = Emulator(state.root / "images.json")
    fleet = Fleet(emulator, kind, Delays.of(os.environ))
    try:
        kind.join(Surrounding(emulator, fleet))
    except (OSError, CloudtrainError) as error:
        kind.reap()
        _tell(ready_fd, {"error": f"the sandbox's machines cannot be made: {error}"})
        return 2
    made = Baked(emulator, fleet, state.images)
    server, layer = _server(state, kind, machines, emulator, fleet, made)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True, name="http").start()
    _tell(ready_fd, {"ready": True})
    _watch(state, fleet, layer, ended, Delays.of(os.environ).idle)
    server.shutdown()
    made.save()
    fleet.close()
    kind.reap()
    state.clear()
    return 0


def reap(state: State) -> int:
    """End and delete what a killed server left; nothing while one lives."""
    lock = state.serve_alone()
    if lock is None:
        return 0
    state.prepare()
    kinds.reap(state)
    state.clear()
    return 0


def _server(
    state: State, kind: Kind, machines: str, emulator: Emulator, fleet: Fleet, made: Baked
) -> tuple[BaseWSGIServer, Layer]:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002, ANN401 - werkzeug's signature
            if type == "error":
                print(message % args, file=sys.stderr)  # noqa: T201 - stderr is the log

        def connection_dropped(self, error: BaseException, environ: Any = None) -> None:  # noqa: ARG002, ANN401
            self.close_connection = True

    def not_yet(*_: Any) -> list[bytes]:  # noqa: ANN401
        return []

    server = make_server("127.0.0.1", 0, not_yet, threaded=True, request_handler=Quiet)
    host = f"127.0.0.1:{server.server_port}"
    guard = Guard(host, f"SANDBOX{secrets.token_hex(10).upper()}", secrets.token_urlsafe(32))
    account = Account(state.root / "account.json", fleet)
    launches = Launches(emulator, fleet, account, Delays.of(os.environ), state.root / "spot.json")
    ec2 = Ec2(emulator, fleet, account, launches)
    behaviours = {
        **ec2.behaviours(),
        **services.behaviours(),
        **prices.behaviours(emulator.wait),
        **Quotas(account).behaviours(),
        **Connect(fleet, Delays.of(os.environ)).behaviours(),
        **regions.behaviours(),
        **made.behaviours(),
    }
    faults = Faults(state.root / "faults.json")
    layer = Layer(guard, behaviours, emulator.forward, _logs(state), first=[faults, regions.closed])
    server.app = layer
    state.publish(
        {
            "url": f"http://{host}",
            "region": REGION,
            "access_key": guard.access_key,
            "secret_key": guard.secret_key,
            "ssh_port": kind.ssh_port,
            "login_user": kind.login_user,
            "machines": machines,
            "pid": os.getpid(),
            "version": __version__,
        }
    )
    return server, layer


def _logs(state: State) -> list[Path]:
    extra = os.environ.get("CLOUDTRAIN_SANDBOX_RECORD")
    return [state.calls, *([Path(extra)] if extra else [])]


def _watch(state: State, fleet: Fleet, layer: Layer, ended: threading.Event, idle_s: float) -> None:
    busy = time.monotonic()
    while not ended.wait(min(1.0, idle_s / 4)):
        if fleet.alive():
            busy = time.monotonic()
        unused = min(time.monotonic() - busy, layer.unused_s, _untouched(state))
        if unused >= idle_s and _withdrawn(state, idle_s):
            return


def _withdrawn(state: State, idle_s: float) -> bool:
    """Take the endpoint away, unless somebody has just been given it."""
    with (state.root / "starting.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if _untouched(state) < idle_s:
            return False
        state.endpoint.unlink(missing_ok=True)
        return True


def _untouched(state: State) -> float:
    try:
        return time.time() - state.touched.stat().st_mtime
    except OSError:
        return float("inf")


def _tell(ready_fd: int | None, message: dict[str, object]) -> None:
    if ready_fd is None:
        return
    try:
        os.write(ready_fd, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        return
    finally:
        os.close(ready_fd)
