"""How long the command takes to answer where it has nothing to do: `--help`, and `status` without a run.

The yardstick is an interpreter that imports typer and rich and does nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Comparison, interleave, report

YARDSTICK = "python -c 'import typer, rich'"


def main() -> None:
    command = str(Path(sys.executable).with_name("cloudtrain"))
    with tempfile.TemporaryDirectory() as folder:
        taken = interleave(
            {
                YARDSTICK: timed([sys.executable, "-c", "import typer, rich"], folder),
                "cloudtrain --help": timed([command, "--help"], folder),
                "cloudtrain status": timed([command, "status"], folder),
            }
        )
    yardstick = taken[YARDSTICK]
    report(
        "start-up",
        [
            Comparison("cloudtrain --help", YARDSTICK, taken["cloudtrain --help"], yardstick, 1.5),
            Comparison("cloudtrain status, no run", YARDSTICK, taken["cloudtrain status"], yardstick, 2.0),
        ],
    )


def timed(command: list[str], folder: str) -> Callable[[], float]:
    """Return a function that runs a command in an empty folder and tells its seconds."""
    environment = {**os.environ, "CLOUDTRAIN_HOME": f"{folder}/home"}

    def once() -> float:
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - start

    return once


if __name__ == "__main__":
    main()
