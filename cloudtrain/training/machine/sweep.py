"""A search for hyperparameters on one machine: one process per device, one table of results.

`sweep.main(plan)` is the session's trainer. Its plan holds `sweep`: {"trials", "table",
"scratch", "workers": [{"device", "argv"}]}. Each process adds one row to the table and ends;
another is started on its device while rows and processes together are fewer than the trials. So a
worker that dies loses the trial that it was at and nothing else, and no row is written that was
not asked for.

All share one table, for each search goes on from the best rows of all.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .checkpoints import write

LOOK_S = 0.2
APART_S = 1.2
"""Between two starts: yolov5 seeds its mutations by the second, and the same ones twice are wasted."""
PATIENCE = 3
"""Trials that a worker may lose in a row before it is given up."""
TAIL, TAIL_BYTES = 40, 16_384
"""What of a worker's log is shown once it was given up."""
GRACE_S = 10.0
TIDY_S = 120.0
"""For what a trial does after its row: the best weights are put in place, curves are drawn."""


class Worker:
    """One device, and the process that is on it now."""

    def __init__(self, number: int, given: dict[str, Any], session: Path) -> None:
        self.number, self.device = number, str(given["device"])
        self.argv: list[str] = given["argv"]
        self.mark = f"{session}/worker-{number}"
        self.log = Path(f"{self.mark}.log")
        self.process: subprocess.Popen[bytes] | None = None
        self.done = self.restarts = self.lost = 0
        self.state = "idle"

    def start(self) -> None:
        """Start one trial in a process group of its own."""
        env = {name: value for name, value in os.environ.items() if name != "CLOUDTRAIN_SECURED"}
        env["CLOUDTRAIN_WORKER"] = self.mark
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self.state = "running"

    def poll(self) -> bool:
        """Look whether the trial ended; return whether anything did."""
        code = self.process.poll() if self.process is not None else None
        if code is None:
            return False
        self.finish(signal.SIGKILL)  # what it left behind holds its device
        self.process = None
        if code == 0:
            self.done, self.lost, self.state = self.done + 1, 0, "idle"
            return True
        self.lost += 1
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        self.state = "given up" if self.lost >= PATIENCE else "idle"
        what = "given up" if self.state == "given up" else f"started again on {self.device}"
        self.restarts += self.state == "idle"
        say(f"worker {self.number} ({self.device}) {how}: {what}; its log is {self.log.name}")
        if self.state == "given up":
            self._show_tail()  # why is told by the session's log alone
        return True

    def _show_tail(self) -> None:
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            for line in log.read().decode("utf-8", "replace").splitlines()[-TAIL:]:
                print(line.rsplit("\r", 1)[-1], flush=True)

    def finish(self, number: int) -> None:
        """Send a signal to the trial and all that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def told(self) -> dict[str, Any]:
        """Return what the state file says of it."""
        return {
            "number": self.number,
            "device": self.device,
            "state": self.state,
            "pid": self.process.pid if self.process else None,
            "done": self.done,
            "restarts": self.restarts,
            "log": str(self.log),
        }


class Sweep:
    """The workers, and the table that they share."""

    def __init__(self, plan: dict[str, Any]) -> None:
        asked: dict[str, Any] = plan["sweep"]
        self.session = Path(plan["session"])
        self.table, self.trials = Path(asked["table"]), int(asked["trials"])
        self.workers = [Worker(n, given, self.session) for n, given in enumerate(asked["workers"])]
        self.scratch = Path(asked["scratch"])
        self.told = ""
        self.ended = 0
        self.started = 0.0

    def run(self) -> int:
        """Start trials until the table has all its rows; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        reap([worker.mark for worker in self.workers])
        mend(self.table)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._windows()
        before = -1
        try:
            while True:
                changed = [worker for worker in self.workers if worker.poll()]
                found = rows(self.table)
                if len(found) != before:
                    before = len(found)
                    say(f"{before} of {self.trials} trials are done{best_said(found)}")
                if self.ended or before >= self.trials:
                    break
                if headers_astray(self.table):
                    self._mend_under_way()
                self._start_one(before)
                if all(worker.state == "given up" for worker in self.workers):
                    break
                self._tell(found)
                if not changed:
                    time.sleep(LOOK_S)
        finally:
            self._stop()
            self._tell(rows(self.table))
        if self.ended:
            return 128 + self.ended
        return 0 if before >= self.trials else 1

    def _start_one(self, done: int) -> None:
        running = sum(worker.state == "running" for worker in self.workers)
        idle = next((worker for worker in self.workers if worker.state == "idle"), None)
        if idle is None or done + running >= self.trials or time.monotonic() - self.started < APART_S:
            return
        idle.start()
        self.started = time.monotonic()

    def _stop(self) -> None:
        """End what runs. With all rows there, what runs has written its own and is tidying up."""
        end = time.monotonic() + TIDY_S
        while not self.ended and any(w.process is not None for w in self.workers) and time.monotonic() < end:
            for worker in self.workers:
                worker.poll()
            time.sleep(LOOK_S)
        for worker in self.workers:
            worker.finish(signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        for worker in self.workers:
            if worker.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, end - time.monotonic()))
                worker.finish(signal.SIGKILL)
                worker.process.wait()
                worker.process = None
            if worker.state != "given up":
                worker.state = "ended"
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _mend_under_way(self) -> None:
        """Two that finish their first trial in one instant both write a header, or the first row before it.

        Nobody could read that.
        """
        for worker in self.workers:
            worker.finish(signal.SIGSTOP)
        mend(self.table)
        for worker in self.workers:
            worker.finish(signal.SIGCONT)

    def _windows(self) -> None:
        """Show each worker's log in a window of the session's screen, where there is one."""
        screen = shutil.which("screen")
        if not os.environ.get("STY") or screen is None:
            return
        for worker in self.workers:
            worker.log.touch()
            show = ["tail", "-n", "+1", "-F", f"--pid={os.getpid()}", str(worker.log)]
            title = f"worker-{worker.number}"
            subprocess.run(
                [screen, "-S", os.environ["STY"], "-X", "screen", "-t", title, *show],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        subprocess.run([screen, "-S", os.environ["STY"], "-X", "select", "0"], check=False)

    def _tell(self, found: list[dict[str, Any]]) -> None:
        best = max(found, key=lambda row: row["fitness"], default=None)
        state = {
            "trials": self.trials,
            "done": len(found),
            "table": str(self.table),
            "best": best,
            "workers": [worker.told() for worker in self.workers],
        }
        text = json.dumps(state)
        if text != self.told:
            write(self.session / "sweep.json", state)
            self.told = text

    def _end(self, number: int, _frame: object) -> None:
        self.ended = number


def rows(table: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a table, each with its fitness; a header and a torn one are none."""
    try:
        lines = table.read_text(errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = []
    for line in lines:
        row = _row(line, table.suffix) if line.endswith("\n") else None
        if row is not None:
            found.append(dict(row, trial=len(found) + 1))
    return found


def mend(table: Path) -> bool:
    """Drop torn rows and all headers but one, which comes first, in place; only while nobody writes."""
    if not table.exists():
        return False
    lines = table.read_text(errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for line in whole if _row(line, table.suffix) is not None]
    if table.suffix == ".csv":
        if not kept:
            table.unlink()  # yolov5 reads the rows of a table that is there, and fails where there are none
            return True
        headers = [line for line in whole if _row(line, table.suffix) is None]
        kept = headers[:1] + kept
    if kept == lines:
        return False
    # In place: who waits to append has, or will have, this very file open.
    with table.open("r+") as file:
        file.write("".join(kept))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    return True


def headers_astray(table: Path) -> bool:
    """Whether a table has a header that is not its first line."""
    try:
        lines = table.read_text(errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return False
    return table.suffix == ".csv" and any(
        line.endswith("\n") and _row(line, table.suffix) is None for line in lines[1:]
    )


def best_said(found: list[dict[str, Any]]) -> str:
    """Say the best row in a few words."""
    best = max(found, key=lambda row: row["fitness"], default=None)
    return f"; the best is trial {best['trial']}, fitness {best['fitness']:.5f}" if best else ""


def reap(marks: list[str]) -> None:
    """End what an earlier one of us, killed, has left running."""
    wanted = {f"CLOUDTRAIN_WORKER={mark}".encode() for mark in marks}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted & set((entry / "environ").read_bytes().split(b"\0")):
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue


def say(text: str) -> None:
    """Write a line of ours into the training's log."""
    print(f"cloudtrain: {text}", flush=True)


def main(plan: dict[str, Any]) -> None:
    """Run the plan's search, and end with its exit code."""
    sys.exit(Sweep(plan).run())


def _row(line: str, suffix: str) -> dict[str, Any] | None:
    """Read a row: yolov5's CSV has precision, recall, mAP50 and mAP50-95 first; ultralytics' is JSON."""
    try:
        if suffix == ".csv":
            cells = [float(cell) for cell in line.split(",")]
            return {
                "fitness": 0.1 * cells[2] + 0.9 * cells[3],
                "metrics": {"mAP_0.5": cells[2], "mAP_0.5:0.95": cells[3]},
            }
        known: Any = json.loads(line)
        return {
            "fitness": float(known["fitness"]),
            "metrics": {},
            "hyperparameters": known.get("hyperparameters", {}),
        }
    except (ValueError, IndexError, KeyError, TypeError):
        return None
