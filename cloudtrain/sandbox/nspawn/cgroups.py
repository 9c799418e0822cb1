"""A control group of its own for each machine, in which every process of it can be found.

Machines that share one disturb each other: each one's systemd would take the others'
processes for its own services'.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

PREFIX = "cloudtrain-"


def make(machine_id: str) -> list[Path]:
    """Make the groups below this process's own, and return their folders. Raises `OSError`."""
    own = dict(_own())
    made: list[Path] = []
    for kind, root in _hierarchies():
        folder = root / own.get(kind, "/").lstrip("/") / f"{PREFIX}{machine_id}"
        folder.mkdir(exist_ok=True)
        made.append(folder)
    if not made:
        raise OSError("no control group hierarchy of systemd's is mounted here")
    return made


def processes(groups: list[Path]) -> set[int]:
    """Return every process in these groups and below them."""
    found: set[int] = set()
    for group in groups:
        for folder in _below(group):
            try:
                found.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
            except OSError:
                continue
    return found - {0}


def end(groups: list[Path], *, timeout_s: float = 20) -> None:
    """Kill everything in these groups and remove them. Raises `TimeoutError`."""
    until = time.monotonic() + timeout_s
    while pids := processes(groups):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > until:
            raise TimeoutError(f"processes {sorted(pids)} do not end")
        time.sleep(0.01)
    for group in groups:
        for folder in _below(group):
            _rmdir(folder)


def _below(group: Path) -> list[Path]:
    """Return a group and those below it, the lowest first; systemd makes and removes some meanwhile."""
    return [Path(name) for name, _, _ in os.walk(group, topdown=False)]


def _rmdir(folder: Path) -> None:
    # A group stays busy for a moment after its last process is gone.
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return


def _own() -> list[tuple[str, str]]:
    rows = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return [(controllers or "v2", path) for _, controllers, path in rows]


def _hierarchies() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup2":
            found.append(("v2", Path(place)))
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            found.append(("name=systemd", Path(place)))
    return found
