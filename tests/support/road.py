"""The installed command, driven as a user drives it: a folder, a subprocess, its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudtrain.providers import sandbox
from tests.support import warm
from tests.support.sandbox import Running

CONFIG = """\
name: road
provider: sandbox
environment: {manager: existing, python: /usr/bin/python3, torch: none}
train:
  kind: script
  command: python3 train.py
  outputs: ["out/*.pt"]
"""

TRAIN = """\
import os, sys, time, zipfile
print("first line", flush=True)
os.makedirs("out", exist_ok=True)
def save(name, text):
    with zipfile.ZipFile(f"out/{name}.part", "w") as z:
        z.writestr("archive/data.pkl", text * 1000)
        z.writestr("archive/version", "3")
    os.replace(f"out/{name}.part", f"out/{name}")
save("last.pt", "one")
while os.path.exists("wait") and not os.path.exists("go"):
    time.sleep(0.05)
save("best.pt", "two")
print("last line", flush=True)
sys.exit(int(open("code").read()) if os.path.exists("code") else 0)
"""


@dataclass
class Road:
    """A project folder, a CLOUDTRAIN_HOME of its own, and the command."""

    root: Path
    home: Path
    env: dict[str, str] = field(default_factory=dict[str, str])
    module: str = "cloudtrain"

    def __post_init__(self) -> None:
        self.project = self.root / "project"
        self.project.mkdir(parents=True)
        (self.project / "cloudtrain.yaml").write_text(CONFIG)
        (self.project / "train.py").write_text(TRAIN)

    @property
    def state(self) -> Path:
        """The sandbox's folder."""
        return self.home / "data" / "sandbox"

    @property
    def running(self) -> Running:
        """The sandbox, to ask it directly."""
        return Running(sandbox.ensure(self.state), self.state)

    def environ(self) -> dict[str, str]:
        """The environment of a command."""
        return {**os.environ, "CLOUDTRAIN_HOME": str(self.home), "COLUMNS": "200", **self.env}

    def start(self, *args: str, gate: Path | None = None, said: Path | None = None) -> subprocess.Popen[str]:
        """Start a command without waiting for it; behind a gate (a FIFO) it waits for a line first.

        What it says goes to `said` where that is given, to be read while it runs.
        """
        command = [sys.executable, "-m", self.module, *args]
        if gate is not None:
            command = ["/bin/sh", "-c", 'read -r _ < "$0" && exec "$@"', str(gate), *command]
        with (said or Path(os.devnull)).open("w") as file:
            return subprocess.Popen(
                command,
                cwd=self.project,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if said is None else file,
                text=True,
                start_new_session=True,
            )

    def call(
        self, *args: str, code: int | None = 0, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code."""
        try:
            done = warm.run(self.module, args, cwd=self.project, env=self.environ(), timeout=timeout)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{args} took more than {timeout} s\n{late.stdout}\n{late.stderr}") from None
        out, err = done.stdout, done.stderr
        assert code is None or done.returncode == code, f"{args}: {done.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return done

    def json(self, *args: str, code: int | None = 0) -> dict[str, Any]:
        """Run a command with `--json` and return its one object."""
        done = self.call(*args, "--json", code=code)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def wait_for_end(self, timeout: float = 60) -> None:
        """Wait until the newest training has ended; a machine that does not answer is asked again."""

        def ended() -> bool:
            training = self.json("status")["result"]["training"]
            return training is not None and training["session"]["state"] != "running"

        until(ended, timeout=timeout)

    def alive(self) -> list[str]:
        """Ask the emulated cloud directly which machines are not terminated."""
        ec2 = self.running.ec2
        rows = ec2.describe_instances()["Reservations"]
        items = [item for row in rows for item in row.get("Instances", [])]
        return [str(i.get("InstanceId")) for i in items if i.get("State", {}).get("Name") != "terminated"]

    def left(self) -> list[str]:
        """Ask the emulated cloud directly for anything of ours at all."""
        ec2 = self.running.ec2
        pairs = [str(pair.get("KeyName")) for pair in ec2.describe_key_pairs()["KeyPairs"]]
        groups = [str(g.get("GroupName")) for g in ec2.describe_security_groups()["SecurityGroups"]]
        volumes = [str(v.get("VolumeId")) for v in ec2.describe_volumes()["Volumes"]]
        return self.alive() + pairs + [name for name in groups if name != "default"] + volumes


@contextmanager
def home(root: Path) -> Generator[Path]:
    """A CLOUDTRAIN_HOME whose sandbox ends with it, whatever happened on it."""
    try:
        yield root
    finally:
        sandbox.stop(root / "data" / "sandbox")


def until(condition: Callable[[], bool], what: str = "it did not happen", *, timeout: float = 30) -> None:
    """Wait for something another process does; there is no event to wait for across it."""
    end, pause = time.monotonic() + timeout, 0.02
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < end, what
        # Asking often slows what is waited for: at most as long as not asking.
        time.sleep(max(pause, min(now - asked, 2)))
        pause = min(1.3 * pause, 0.5)
