"""`doctor`: everything between this computer and a machine, looked at side by side."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from threading import Thread

from cloudtrain.errors import CloudtrainError
from cloudtrain.models.account import Check, Probe
from cloudtrain.models.config import Config
from cloudtrain.paths import data_dir
from cloudtrain.providers.base import Provider

DEADLINE_S = 15.0
"""How long all checks together may take."""
_INSTALL = "install it: `sudo apt-get install {}` (Debian, Ubuntu), `brew install {}` (macOS)"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks; `blocked` says that something must be mended first."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def blocked(self) -> bool:
        """Whether any check failed."""
        return any(check.state == "fail" for check in self.checks)


def doctor(provider: Callable[[], Provider], config: Config, *, deadline_s: float = DEADLINE_S) -> Diagnosis:
    """Make every check at once. Never raises for what it finds: that is its answer."""
    began = time.monotonic()
    asked = [(probe, _ask(probe)) for probe in (*local_probes(), *_cloud(provider, config))]
    checks = tuple(_answer(probe, future, began + deadline_s) for probe, future in asked)
    return Diagnosis(checks, time.monotonic() - began)


def local_probes() -> tuple[Probe, ...]:
    """Return the checks of this computer alone."""
    return (
        Probe("ssh", _ssh),
        Probe(
            "ssh-keygen",
            lambda: _tool("ssh-keygen", "openssh-client", "warn", "showing a host key's fingerprint"),
        ),
        Probe(
            "rsync",
            lambda: _tool(
                "rsync", "rsync", "warn", "pushes of many files, which go over a slower way without it"
            ),
        ),
        Probe("data folder", _data_folder),
        Probe("evaluation", _evaluation),
    )


def _cloud(provider: Callable[[], Provider], config: Config) -> tuple[Probe, ...]:
    try:
        return provider().probes(config)
    except CloudtrainError as error:
        said = Check("provider", "fail", error.message, error.hint)
        return (Probe("provider", lambda: said),)


def _ask(probe: Probe) -> Future[Check]:
    future: Future[Check] = Future()

    def work() -> None:
        try:
            future.set_result(probe.ask())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            future.set_exception(error)

    # A daemon: a stalled question must not keep the command from ending.
    Thread(target=work, daemon=True, name=probe.name).start()
    return future


def _answer(probe: Probe, future: Future[Check], end: float) -> Check:
    try:
        return future.result(timeout=max(0.0, end - time.monotonic()))
    except Late:
        return Check(probe.name, "fail", "no answer in time", "check the network, a proxy or a VPN")
    except CloudtrainError as error:
        return Check(probe.name, "fail", error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others
        return Check(probe.name, "warn", f"could not be checked: {type(error).__name__}: {error}")


def _ssh() -> Check:
    path = shutil.which("ssh")
    if path is None:
        return _absent("ssh", "openssh-client", "fail", "pushes, shells and tunnels")
    done = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=5, check=False)
    return Check("ssh", "ok", (done.stderr or done.stdout).strip().split(",")[0])


def _tool(name: str, package: str, state: str, why: str) -> Check:
    path = shutil.which(name)
    return Check(name, "ok", path) if path else _absent(name, package, state, why)


def _absent(name: str, package: str, state: str, why: str) -> Check:
    remedy = f"{_INSTALL.format(package, package)}; needed for {why}"
    return Check(name, "fail" if state == "fail" else "warn", "not installed", remedy)


def _data_folder() -> Check:
    folder = data_dir()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    if not os.access(there, os.W_OK):
        return Check(
            "data folder", "fail", f"{there} cannot be written", "set CLOUDTRAIN_HOME to another folder"
        )
    state = "ok" if free >= 5 else "warn"
    return Check(
        "data folder", state, f"{folder}, {free:.0f} GB free", "" if state == "ok" else "free some room"
    )


def _evaluation() -> Check:
    if importlib.util.find_spec("ultralytics") is None:
        return Check("evaluation", "ok", "not installed; only `cloudtrain evaluate` needs it")
    return Check("evaluation", "ok", "ultralytics is installed")
