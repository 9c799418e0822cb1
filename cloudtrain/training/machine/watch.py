"""Secures what a trainer writes that is not ours to change: `watch.main(PLAN.json)`.

For yolov5 its last.pt, for scripts whatever matches their outputs. It ends after supervisor and
trainer, or when asked to, with a last look. A file whose format cannot tell that it is whole
counts once it stood still for two looks; one that can may be written more often than that.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from .checkpoints import proves_itself, secure, whole

SUFFIXES = (
    ".pt",
    ".pth",
    ".pth.tar",
    ".ckpt",
    ".safetensors",
    ".h5",
    ".keras",
    ".bin",
    ".onnx",
    ".npz",
    ".pkl",
    ".joblib",
)
LOOK_S = 2.0


class Watch:
    """Looks, and remembers what it saw and what it has secured."""

    def __init__(self, plan: dict[str, Any], since: float) -> None:
        self.plan = plan
        self.since = since
        self.run_dir = Path(plan["run_dir"])
        self.seen: dict[Path, tuple[int, int]] = {}
        self.done: dict[Path, tuple[int, int]] = {}

    def look(self) -> None:
        """Secure what has changed and is whole now."""
        for path in self.candidates():
            try:
                status = path.stat()
                now = (status.st_size, status.st_mtime_ns)
                still = self.seen.get(path) == now or proves_itself(path)
                self.seen[path] = now
                if not still or self.done.get(path) == now or status.st_mtime < self.since or not whole(path):
                    continue
                epoch, metrics = self.row(path)
                session = Path(self.plan["session"])
                if secure(path, Path(self.plan["secured"]), epoch=epoch, metrics=metrics, session=session):
                    self.done[path] = now
            except OSError as error:
                print(f"cloudtrain: {path.name} was not secured: {error}", flush=True)

    def candidates(self) -> list[Path]:
        """Return the files that may be checkpoints."""
        if self.plan["kind"] == "yolov5":
            return (
                [self.run_dir / "weights" / "last.pt"]
                if (self.run_dir / "weights" / "last.pt").exists()
                else []
            )
        found = {path for path in self.run_dir.rglob("*") if path.name.endswith(SUFFIXES)}
        outputs: list[str] = self.plan.get("outputs", [])
        for pattern in outputs:
            found |= {
                Path(one) for one in glob.glob(os.path.join(self.plan["project"], pattern), recursive=True)
            }
        return sorted(path for path in found if path.is_file())

    def row(self, path: Path) -> tuple[int | None, dict[str, Any]]:
        """Return the epoch and metrics that belong to a checkpoint.

        A row is written before its checkpoint: one that is newer than the file is of the next.
        """
        results = self.run_dir / "results.csv"
        if not results.is_file():
            return None, {}
        newer = results.stat().st_mtime_ns > path.stat().st_mtime_ns
        with results.open(newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
        if not rows:
            return None, {}
        full = [row for row in rows[1:] if len(row) == len(rows[0])]
        full = full[:-1] if newer else full
        if not full or rows[0][0] != "epoch":
            return None, {}
        metrics = {name: value for name, value in zip(rows[0], full[-1]) if name not in ("epoch", "time")}
        try:
            return int(float(full[-1][0])) + (self.plan["kind"] == "yolov5"), metrics
        except ValueError:
            return None, metrics


def main(path: str) -> None:
    """Watch until the session is over, and look once more."""
    plan: dict[str, Any] = json.loads(Path(path).read_text())
    watch, ended = Watch(plan, time.time() - 1), threading.Event()

    def end(*_: object) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    pause = float(os.environ.get("CLOUDTRAIN_LOOK_S", LOOK_S))
    while any(alive(Path(plan["session"], name)) for name in ("supervisor", "trainer")):
        watch.look()
        if ended.wait(pause):
            break
    watch.look()
    watch.look()


def alive(file: Path) -> bool:
    """Whether the process that a session's file remembers still runs: `boot pid start-time`."""
    try:
        boot, pid, began = file.read_text().split()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip() and fields[19] == began
    except (OSError, ValueError, IndexError):
        return False
