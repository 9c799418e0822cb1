"""Finding, starting and ending the emulated cloud; it runs as a process of its own.

Never imports it: everything is said through its state folder (`endpoint.json`, and a
lock that is held while a server lives, so that a killed one is known at once).
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudtrain.errors import CloudError, UsageError
from cloudtrain.paths import data_dir

STOP_S = 30.0
MACHINES = "CLOUDTRAIN_SANDBOX_MACHINES"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a running sandbox: its API, and the kind, port and user of its machines."""

    url: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    ssh_port: int
    login_user: str
    machines: str = "process"


def ensure(
    state: Path | None = None,
    *,
    machines: str | None = None,
    timeout_s: float = 30,
    tell: Callable[[str], None] = lambda _: None,
) -> Endpoint:
    """Return the running sandbox, or start one; of two callers one starts it.

    `machines` is `process` or `nspawn`, by default what CLOUDTRAIN_SANDBOX_MACHINES says;
    a running sandbox keeps the kind that it has. The first machine of kind `nspawn` needs
    a disk image that takes minutes to make: `tell` is told so.

    Raises `UsageError` when the `sandbox` extra or a program that its machines need is
    missing, or when machines of another kind run; `CloudError` when it does not come up
    within `timeout_s` seconds.
    """
    folder = _folder(state)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    wanted = machines or os.environ.get(MACHINES) or None
    if wanted == "nspawn" and running(folder) is None:
        _make_image(folder, tell)
    with _starting(folder, timeout_s):
        found = running(folder)
        if found is None:
            _start(folder, timeout_s, wanted or "process")
            found = running(folder)
        else:
            (folder / "touched").touch()  # says that it is wanted, so that it does not end now
    if found is None:
        raise CloudError("the sandbox ended as soon as it had started", hint=_log_hint(folder))
    if wanted not in (None, found.machines):
        raise UsageError(
            f"the running sandbox has machines of kind `{found.machines}`, and `{wanted}` is asked for",
            hint="end its runs with `cloudtrain down` first, or leave CLOUDTRAIN_SANDBOX_MACHINES out",
        )
    return found


def running(state: Path | None = None) -> Endpoint | None:
    """Return the running sandbox, if there is one. Starts nothing; takes a millisecond."""
    folder = _folder(state)
    if not _served(folder):
        return None
    try:
        found: dict[str, Any] = json.loads((folder / "endpoint.json").read_text())
    except (OSError, ValueError):
        return None
    names = ("url", "region", "access_key", "secret_key", "ssh_port", "login_user")
    return Endpoint(**{name: found[name] for name in names}, machines=found.get("machines", "process"))


def stop(state: Path | None = None) -> None:
    """End the sandbox and every machine in it; none running is success.

    Raises `CloudError` when it does not end.
    """
    folder = _folder(state)
    if not folder.is_dir():
        return
    with _starting(folder, STOP_S):
        if _served(folder):
            _end(folder)
        if (
            any(folder.glob("machines/*")) or (folder / "disks").exists()
        ):  # what a killed server could not clean up
            command = [sys.executable, "-m", "cloudtrain.sandbox", "reap", "--state", str(folder)]
            subprocess.run(command, env=_environment(), cwd=folder, check=False, timeout=STOP_S)


def _folder(state: Path | None) -> Path:
    return state if state is not None else data_dir() / "sandbox"


@contextmanager
def _starting(folder: Path, timeout_s: float) -> Generator[None]:
    end = time.monotonic() + timeout_s
    with (folder / "starting.lock").open("a") as lock:
        while not _taken(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise CloudError("another command is starting or ending the sandbox", hint="try again")
            time.sleep(0.02)
        yield


def _taken(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _served(folder: Path) -> bool:
    try:
        with (folder / "serving.lock").open() as lock:
            return not _taken(lock.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _make_image(folder: Path, tell: Callable[[str], None]) -> None:
    """Have the disk image of nspawn machines made, where there is none yet."""
    _check_installed()
    command = [sys.executable, "-m", "cloudtrain.sandbox", "image", "--state", str(folder)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=_environment(),
        text=True,
    )
    with process:
        for line in process.stdout or ():
            tell(line.rstrip())
        said = process.stderr.read() if process.stderr else ""
    if process.returncode == UsageError.exit_code:
        error, _, hint = said.strip().partition("\n")
        raise UsageError(error.removeprefix("cloudtrain.sandbox: "), hint=hint)
    if process.returncode:
        raise CloudError(said.strip().removeprefix("cloudtrain.sandbox: "))


def _check_installed() -> None:
    missing = [name for name in ("moto", "flask", "werkzeug", "uv") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the sandbox needs {', '.join(missing)}, which is not installed",
            hint="`pip install 'cloudtrain[sandbox]'`",
        )


def _start(folder: Path, timeout_s: float, machines: str) -> None:
    _check_installed()
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "cloudtrain.sandbox", "serve", "--state", str(folder)]
    with os.fdopen(reader, "rb", buffering=0) as answer, (folder / "sandbox.log").open("ab") as log:
        try:
            child = subprocess.Popen(
                [*command, "--ready-fd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**_environment(), MACHINES: machines},
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        child.wait(timeout_s)  # it forks at once: the server is a child of nobody here
        ready, _, _ = select.select([answer], [], [], timeout_s)
        line = answer.read(65536) if ready else b""
    _judge(line, folder)


def _judge(line: bytes, folder: Path) -> None:
    told: dict[str, Any] = json.loads(line) if line else {}
    if "error" in told:
        raise UsageError(str(told["error"]), hint=str(told.get("hint", "")))
    if not told:
        raise CloudError("the sandbox did not start", hint=_log_hint(folder))


def _log_hint(folder: Path) -> str:
    return f"read the end of {folder / 'sandbox.log'}"


def _end(folder: Path) -> None:
    pid = int((folder / "serving.lock").read_text())
    handle = os.pidfd_open(pid)
    try:
        os.kill(pid, 15)
        gone, _, _ = select.select([handle], [], [], STOP_S)
    finally:
        os.close(handle)
    if not gone:
        raise CloudError(f"the sandbox (process {pid}) does not end", hint=f"`kill -9 {pid}`, then try again")


def _environment() -> dict[str, str]:
    # A checkout that is not installed must be found from the state folder as well.
    package = str(Path(__file__).resolve().parents[2])
    path = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOTO_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
