"""Finding and ending every process of a machine, however it was started.

Three marks, because each alone can be lost: the environment (inherited by everything
the machine's user starts, but overwritten by sshd's own process titles), the session
of the leader (which holds exactly those), and, for root, a PID namespace, whose first
process takes all others with it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MARK = "CLOUDTRAIN_MACHINE"


@dataclass(frozen=True, slots=True)
class Leader:
    """The first process of a machine. `started` (clock ticks) tells it from a later owner of its number."""

    pid: int
    started: int


def leader_of(pid: int) -> Leader:
    """Return the leader for a child that was just started."""
    status = _stat(pid)
    return Leader(pid, int(status[19]) if status else 0)


def processes_of(machine_id: str, leader: Leader | None) -> list[int]:
    """Return the numbers of all living processes of a machine."""
    mark = f"{MARK}={machine_id}".encode()
    session = _session(leader)
    return [
        pid
        for entry in os.scandir("/proc")
        if entry.name.isdigit() and _belongs(pid := int(entry.name), mark, session)
    ]


def end(machine_id: str, leader: Leader | None, *, grace_s: float = 0, timeout_s: float = 20) -> None:
    """End all of them: politely for `grace_s`, then by force until none is left.

    Raises `TimeoutError` when one cannot be ended, which the kernel allows only while
    it waits for a device.
    """
    if grace_s:
        _signal_all(processes_of(machine_id, leader), signal.SIGTERM)
        _until_none(machine_id, leader, grace_s, lambda _: None)
    if not _until_none(machine_id, leader, timeout_s, lambda pids: _signal_all(pids, signal.SIGKILL)):
        raise TimeoutError(f"{machine_id} has processes that do not end")


def _until_none(
    machine_id: str, leader: Leader | None, timeout_s: float, act: Callable[[list[int]], None]
) -> bool:
    end_at = time.monotonic() + timeout_s
    while pids := processes_of(machine_id, leader):
        act(pids)
        if time.monotonic() > end_at:
            return False
        time.sleep(0.02)
    return True


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _session(leader: Leader | None) -> int | None:
    # A session's number is not given away while a process is in it: only a living
    # leader that started at another moment says that the number is not ours any more.
    if leader is None:
        return None
    status = _stat(leader.pid)
    return leader.pid if status is None or int(status[19]) == leader.started else None


def _belongs(pid: int, mark: bytes, session: int | None) -> bool:
    status = _stat(pid)
    if status is None or status[0] in ("Z", "X"):
        return False
    if session is not None and int(status[3]) == session:
        return True
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name: state is 0, session 3, start time 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
