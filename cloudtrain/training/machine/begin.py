"""Begins a training, or goes on with it: `begin.main(PLAN.json)`.

What a run's life is, is read from evidence each time: its own checkpoints and the secured ones.
Then this process becomes the trainer. The plan: {"kind", "argv", "run_dir", "secured",
"session", "resume_from"}; `argv` is the fresh start's command.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .checkpoints import restore, secured, trim, whole

KEPT_ON_RESUME = (
    "imgsz", "batch", "device", "close_mosaic", "save_period", "workers", "cache", "patience", "time",
    "freeze", "val", "plots", "data",
)  # fmt: skip
"""What ultralytics lets a resumed training change; the rest comes from the checkpoint (8.4.190, check_resume)."""


class Evidence(NamedTuple):
    """What the files say: `life` is new, interrupted or finished."""

    life: str
    checkpoint: Path | None = None
    epoch: int = 0  # finished epochs
    epochs: int | None = None
    note: str = ""


class Inside(NamedTuple):
    """What a checkpoint says of itself; `epoch` counts finished epochs, 0 where none is told."""

    epoch: int
    epochs: int | None
    stripped: bool


def main(path: str) -> None:
    """Read the plan, weigh the evidence, and become the trainer."""
    plan: dict[str, Any] = json.loads(Path(path).read_text())
    if plan.get("sweep"):
        importlib.import_module(".sweep", __package__).main(plan)
        return
    argv: list[str] = plan["argv"]
    run_dir = Path(plan["run_dir"])
    evidence = weigh(plan)
    if evidence.note:
        print(f"cloudtrain: {evidence.note}", flush=True)
    if evidence.life == "finished":
        finish(plan["kind"], run_dir, evidence)
        return
    if evidence.life == "interrupted" and evidence.checkpoint is not None:
        argv = go_on(plan, evidence)
    os.execvp(argv[0], argv)  # noqa: S606 - the trainer takes this process over, and its number


def weigh(plan: dict[str, Any]) -> Evidence:
    """Return where the run stands: what is furthest and whole counts, whatever a torn last.pt was.

    Raises `SystemExit` for a checkpoint to go on from that is finished: going on would be a new
    training, on another dataset.
    """
    run_dir, folder = Path(plan["run_dir"]), Path(plan["secured"])
    copies = secured(folder)
    given = Path(plan["resume_from"]) if plan.get("resume_from") else None
    if plan["kind"] == "script":
        checkpoint = copies[0][0] if copies else given
        return Evidence("interrupted" if checkpoint else "new", checkpoint)
    last = run_dir / "weights" / "last.pt"
    read = {"yolo": inside_ultralytics, "yolov5": inside_yolov5}[plan["kind"]]
    torn = last.exists() and not whole(last)
    found: list[tuple[int, Path, Inside]] = []
    for group in ([last], [path for path, _ in copies], [given] if given else []):
        for path in group:
            inside = read(path) if whole(path) else None
            if inside is None:
                continue
            if inside.stripped and path == last:
                return Evidence("finished", note="this training has finished before")
            if inside.stripped and path == given and not found:
                raise SystemExit(
                    f"cloudtrain: {path} is finished and cannot be resumed: start from its weights"
                )
            if not inside.stripped:
                found.append((inside.epoch, path, inside))
                break
    if not found:
        return Evidence("new", note="no checkpoint is whole: starting again" if torn else "")
    epoch, path, inside = max(found, key=lambda one: one[0])
    if inside.epochs is not None and epoch >= inside.epochs:
        return Evidence("finished", path, epoch, inside.epochs, "all epochs are done")
    note = f"going on after epoch {epoch} of {inside.epochs}, from {path}"
    return Evidence("interrupted", path, epoch, inside.epochs, note + (" (last.pt is torn)" if torn else ""))


def go_on(plan: dict[str, Any], evidence: Evidence) -> list[str]:
    """Make the run folder what it was after the checkpoint's epoch, and return the resuming command."""
    run_dir, argv = Path(plan["run_dir"]), list(plan["argv"])
    assert evidence.checkpoint is not None
    if plan["kind"] == "script":
        os.environ["CLOUDTRAIN_RESUME"] = str(evidence.checkpoint)
        return argv
    last, best = run_dir / "weights" / "last.pt", run_dir / "weights" / "best.pt"
    if evidence.checkpoint != last:
        restore(evidence.checkpoint, last)
    if not whole(best):
        restore(last, best)  # it was torn while the best epoch was written, which is this one
    counts_from = 1 if plan["kind"] == "yolov5" else 0
    trim(run_dir / "results.csv", evidence.epoch - counts_from)
    if plan["kind"] == "yolov5":
        return yolov5_again(argv, run_dir, last)
    return ultralytics_again(argv, run_dir, last, evidence)


def ultralytics_again(argv: list[str], run_dir: Path, last: Path, evidence: Evidence) -> list[str]:
    """Return ultralytics' resuming command. Only save_dir keeps a moved run in its folder."""
    at = argv.index("train")
    given = dict(word.split("=", 1) for word in argv[at + 1 :] if "=" in word)
    asked = given.get("epochs", "")
    if evidence.epochs is not None and asked.isdigit() and int(asked) != evidence.epochs:
        print(
            f"cloudtrain: it stays at {evidence.epochs} epochs: a resumed training cannot change them",
            flush=True,
        )
    kept = [f"{key}={value}" for key, value in given.items() if key in KEPT_ON_RESUME]
    return [*argv[: at + 1], f"model={last}", "resume=True", f"save_dir={run_dir}", *kept]


def yolov5_again(argv: list[str], run_dir: Path, last: Path) -> list[str]:
    """Return yolov5's resuming command. It takes everything from opt.yaml, so that must say this folder."""
    options = run_dir / "opt.yaml"
    if not options.is_file():  # a checkpoint from another machine brings them along
        recorded: dict[str, Any] = (_load(last) or {}).get("opt") or {}
        options.write_text(
            "".join(f"{key}: {json.dumps(value, default=str)}\n" for key, value in recorded.items())
        )
    if options.stat().st_size:
        given = {"save_dir": str(run_dir), "project": str(run_dir.parent), "name": run_dir.name}
        for flag in ("--data", "--device"):
            if flag in argv:
                given[flag[2:]] = argv[argv.index(flag) + 1]
        text = options.read_text()
        for key, value in given.items():
            line = f"{key}: {json.dumps(value)}"
            text, count = re.subn(rf"(?m)^{key}:.*$", lambda _, line=line: line, text)
            text += "" if count else line + "\n"
        part = options.with_name(".opt.yaml.part")
        part.write_text(text)
        part.replace(options)
    return [*argv[: argv.index("train.py") + 1], "--resume", str(last)]


def finish(kind: str, run_dir: Path, evidence: Evidence) -> None:
    """Do what is left of a training whose epochs are all done: leave finished weights."""
    if evidence.checkpoint is None:
        return
    last, best = run_dir / "weights" / "last.pt", run_dir / "weights" / "best.pt"
    if evidence.checkpoint != last:
        restore(evidence.checkpoint, last)
    if not whole(best):
        restore(last, best)
    module = "ultralytics.utils.torch_utils" if kind == "yolo" else "utils.general"
    strip = importlib.import_module(module).strip_optimizer
    for path in (best, last):  # last.pt at the end: stripped, it is the proof that all is done
        strip(str(path))


def inside_ultralytics(path: Path) -> Inside | None:
    """Read an ultralytics checkpoint, None when it cannot be. It is the machine's own."""
    known = _load(path)
    if known is None:
        return None
    epoch = int(known.get("epoch", -1))
    args: dict[str, Any] = known.get("train_args") or {}
    return Inside(epoch + 1, args.get("epochs"), epoch < 0 and known.get("optimizer") is None)


def inside_yolov5(path: Path) -> Inside | None:
    """Read a yolov5 checkpoint, None when it cannot be."""
    known = _load(path)
    if known is None:
        return None
    epoch = int(known.get("epoch", -1))
    options: dict[str, Any] = known.get("opt") or {}
    return Inside(epoch + 1, options.get("epochs"), epoch < 0 and known.get("optimizer") is None)


def _load(path: Path) -> dict[str, Any] | None:
    torch = importlib.import_module("torch")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # yolov5's classes lie in the project
    try:
        known: Any = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, it cannot be gone on from
        print(f"cloudtrain: {path} cannot be read: {error!r}", flush=True)
        return None
    return known if isinstance(known, dict) else None  # pyright: ignore[reportUnknownVariableType]
