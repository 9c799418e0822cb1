"""The sandbox's folder on disk: what lies where, who holds it, what it was told.

endpoint.json   0600, how to reach the running server; gone when it ends
serving.lock    held with flock(2) while a server lives, so that a killed one is known
account.json    quotas and capacity, when a test or a rehearsal sets them (account.py)
spot.json       which spot instances are reclaimed (spot.py)
touched         its time is the last moment somebody wanted the sandbox
calls.jsonl     every call that was admitted: service, call, region, HTTP status, error code;
                begun anew when it is large, unless a file `record` lies beside it. The
                file that CLOUDTRAIN_SANDBOX_RECORD names gets the same lines
faults.json     the faults that are armed (faults.py)
home/           what machines see as /home: one folder a machine, .cache, .bin
machines/       one folder a machine: sshd's files and log
images/         one folder for each image that was made of a machine
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CALLS_KEPT = 4 << 20


@dataclass(frozen=True, slots=True)
class State:
    """Paths below one state folder."""

    root: Path

    @property
    def endpoint(self) -> Path:
        """How to reach the server."""
        return self.root / "endpoint.json"

    @property
    def home(self) -> Path:
        """What the machines see as /home."""
        return self.root / "home"

    @property
    def machines(self) -> Path:
        """One folder a machine, which it cannot write."""
        return self.root / "machines"

    @property
    def images(self) -> Path:
        """One folder for each image that was made of a machine; they outlive the server."""
        return self.root / "images"

    @property
    def calls(self) -> Path:
        """The log of calls."""
        return self.root / "calls.jsonl"

    @property
    def touched(self) -> Path:
        """The file whose time says when the sandbox was last wanted."""
        return self.root / "touched"

    def prepare(self) -> None:
        """Make the folders, readable by nobody else."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (self.home, self.machines, self.home / ".machine", self.home / ".cache" / "uv"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        self.endpoint.unlink(missing_ok=True)
        self.touched.touch()
        kept = (self.root / "record").exists()
        if not kept and self.calls.exists() and self.calls.stat().st_size > CALLS_KEPT:
            self.calls.unlink()

    def serve_alone(self) -> IO[str] | None:
        """Take the folder for this process's life; None when another server has it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (self.root / "serving.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return lock

    def publish(self, endpoint: Mapping[str, object]) -> None:
        """Write the endpoint file, whole or not at all."""
        part = self.endpoint.with_suffix(".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(endpoint, file)
        part.replace(self.endpoint)

    def clear(self) -> None:
        """Remove everything but logs and the package cache."""
        self.endpoint.unlink(missing_ok=True)
        shutil.rmtree(self.machines, ignore_errors=True)
        for name in (".bin", ".machine"):
            shutil.rmtree(self.home / name, ignore_errors=True)
        for file in (self.touched, self.root / "images.json"):
            file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things take, in seconds. Much shorter than AWS, never zero by default.

    `relaunch` is how soon EC2 replaces a terminated instance of a persistent spot request,
    `restore` how soon it starts one again whose capacity is back, `notice` how long before
    an interruption it is announced, `pushed_key` how long a pushed key is good for.
    `first_contact` and `grace` are what a guard's `first_contact_s` and `grace_s` are
    shortened to; 0 leaves them.
    """

    visible: float = 0.2
    pending: float = 0.3
    stopping: float = 0.3
    terminating: float = 0.3
    idle: float = 60.0
    relaunch: float = 1.0
    restore: float = 0.5
    notice: float = 120.0
    pushed_key: float = 60.0
    first_contact: float = 0.0
    grace: float = 0.0

    @property
    def guard(self) -> dict[str, float]:
        """What of a guard's configuration is shortened."""
        given = {"first_contact_s": self.first_contact, "grace_s": self.grace}
        return {name: seconds for name, seconds in given.items() if seconds}

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Delays:
        """Read `CLOUDTRAIN_SANDBOX_DELAYS`, written like `pending=0.1,idle=5`."""
        text = environ.get("CLOUDTRAIN_SANDBOX_DELAYS", "")
        pairs = [part.split("=", 1) for part in text.split(",") if "=" in part]
        return cls(**{name.strip(): float(value) for name, value in pairs})
