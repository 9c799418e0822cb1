"""A search for hyperparameters: what its workers are told to run, and how it stands."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.models.sweeping import SweepStatus, SweepWorker
from cloudtrain.ssh.remote import Remote
from cloudtrain.training.command import task_of
from cloudtrain.training.devices import chosen

TUNE = "from cloudtrain_training.tune import main; main()"
TABLES = {"yolo": "tune_results.ndjson", "yolov5": "evolve.csv"}


def search(
    config: Config, layout: Layout, *, argv: list[str], number: int, model: str, gpus: int
) -> dict[str, Any]:
    """Return the plan of a search: each worker's command for one trial on its device.

    `argv` is the command of one training, as `build_command` made it for one device. All
    workers share one project and one name, as yolov5's author describes.
    """
    kind, run_dir = config.train.kind, layout.run_dir(number)
    devices = [str(number) for number in chosen(config.train.gpus, gpus)] or [
        str(config.train.args.get("device", "cpu"))
    ]
    count = config.sweep.workers or len(devices)
    make = _evolve if kind == "yolov5" else _tune
    scratch = f"{layout.root}/trials/{number:03d}"
    workers = [
        {"device": device, "argv": make(argv, device, run_dir, scratch, model)}
        for device in (devices[n % len(devices)] for n in range(count))
    ]
    return {
        "trials": config.sweep.trials,
        "table": f"{run_dir}/{TABLES[kind]}",
        "scratch": scratch,
        "workers": workers,
    }


def sweep_status(remote: Remote, layout: Layout, number: int) -> SweepStatus | None:
    """Return how a session's search stands, None when it is none; one round trip."""
    text = remote.run(f"cat '{layout.session(number)}/sweep.json' 2>/dev/null", check=False).stdout
    if not text.strip():
        return None
    said: dict[str, Any] = json.loads(text)
    best: dict[str, Any] = said.get("best") or {}
    return SweepStatus(
        trials=said["trials"],
        done=said["done"],
        table=said["table"],
        best_trial=best.get("trial"),
        best_fitness=best.get("fitness"),
        workers=tuple(
            SweepWorker(one["number"], one["device"], one["state"], one["done"], one["restarts"], one["log"])
            for one in said["workers"]
        ),
    )


def _evolve(argv: list[str], device: str, run_dir: str, trials: str, model: str) -> list[str]:
    del run_dir, trials, model
    python, at = argv[0], argv.index("train.py")
    words = argv[at:]
    words[words.index("--device") + 1] = device
    # A search takes `--resume` for `--exist-ok`, and that for nothing (train.py of v7.0: "pass resume to
    # exist_ok"): without it every trial would have a folder and a table of its own.
    return [python, *words, "--resume", "--evolve", "1"]


def _tune(argv: list[str], device: str, run_dir: str, trials: str, model: str) -> list[str]:
    run = PurePosixPath(run_dir)
    words = dict(word.split("=", 1) for word in argv[argv.index("train") + 1 :])
    values: dict[str, object] = {
        key: _value(text) for key, text in words.items() if key not in ("exist_ok", "resume")
    }
    task = task_of(model, {})
    at = argv.index("train")
    named = argv[at - 1] if at > 3 else task
    values |= {
        "device": device,
        "project": str(run.parent),
        "name": run.name,
        "trials": trials,
        "optimizer": words.get("optimizer", "AdamW"),
    }
    if named:
        values["task"] = named
    return [argv[0], "-c", TUNE, json.dumps(values)]


def _value(text: str) -> object:
    """Read a value as ultralytics' command line does: numbers and truth values are such."""
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text
