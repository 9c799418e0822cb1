"""One trial of ultralytics' tune: `main()` with the arguments as JSON in argv[1].

Several processes share one folder, which the tuner itself does not expect: rows are added under a
lock, which is kept until the best weights are in place, and each trial has a folder of its own.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Train one mutation of the best rows, and add its row. What the tuner deletes is this trial's own.

    Raises `SystemExit` where the training fails; no row is added then.
    """
    args: dict[str, Any] = json.loads(sys.argv[1])
    trials = Path(args.pop("trials"))
    tuner: Any = importlib.import_module("ultralytics.engine.tuner").Tuner
    importlib.import_module("ultralytics.utils").SETTINGS.update(sync=False)
    # The tuner opens a folder that is there only when it resumes.
    made: Any = tuner(args={**args, "resume": True})
    mine = trials / f"trial-{os.getpid()}"
    made.args.project = str(mine)
    made.tune_dir.mkdir(parents=True, exist_ok=True)
    added: list[bool] = []
    save, load = made._save_local_result, made._load_local_results  # noqa: SLF001 - the tuner has no other seam
    with (made.tune_dir / ".lock").open("w") as lock:

        def save_alone(result: dict[str, Any]) -> None:
            failed = result.get("failed_datasets")
            if failed:  # a training that crashed is no trial: the tuner would count it, with fitness 0
                raise SystemExit(f"the training failed: {', '.join(map(str, failed))}")
            fcntl.flock(lock, fcntl.LOCK_EX)
            result["iteration"] = len(load()) + 1 if made.tune_file.exists() else 1
            save(result)
            added.append(True)

        made._save_local_result = save_alone  # noqa: SLF001
        try:
            while not added:  # another's row, in between, leaves nothing to do for this count
                made(iterations=(len(load()) if made.tune_file.exists() else 0) + 1, cleanup=False)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            shutil.rmtree(mine, ignore_errors=True)
