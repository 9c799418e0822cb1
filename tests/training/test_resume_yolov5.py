"""yolov5's ways with a resumed run, with a stand-in that does to its files what train.py does.

As yolov5's train.py: everything is taken from opt.yaml on a resume, the row is written before the
checkpoint, both files are rewritten in place, a finished checkpoint is stripped and refused.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.training.machine.checkpoints import secured, whole
from cloudtrain.training.session import modules

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra `train`")

TRAIN = """
import argparse, pathlib, sys, time, torch, yaml
from utils.general import strip_optimizer
parser = argparse.ArgumentParser()
for name in ("data", "weights", "cfg", "device", "project", "name", "resume", "save_dir"):
    parser.add_argument(f"--{name}")
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--exist-ok", action="store_true")
opt = parser.parse_args()
first = 0
if opt.resume:
    last = pathlib.Path(opt.resume)
    opt = argparse.Namespace(**yaml.safe_load((last.parent.parent / "opt.yaml").read_text()))
    first = torch.load(last, weights_only=False)["epoch"] + 1
    assert first > 0, "training is finished, nothing to resume."
    print(f"resumed at {first} into {opt.save_dir}", flush=True)
else:
    opt.save_dir = str(pathlib.Path(opt.project) / opt.name)
run = pathlib.Path(opt.save_dir)
(run / "weights").mkdir(parents=True, exist_ok=True)
(run / "opt.yaml").write_text(yaml.safe_dump(vars(opt), sort_keys=False))
last, best, results = run / "weights" / "last.pt", run / "weights" / "best.pt", run / "results.csv"
for epoch in range(first, opt.epochs):
    while not pathlib.Path(f"go-{epoch}").exists():
        time.sleep(0.02)
    head = "" if results.exists() else "               epoch,       metrics/mAP_0.5\\n"
    with results.open("a") as file:
        file.write(f"{head}{epoch:20d},{0.1 * (epoch + 1):20.5g}\\n")
    for path in (last, best):
        torch.save({"epoch": epoch, "optimizer": {"lr": 1}, "opt": vars(opt), "model": torch.zeros(99)}, path)
for path in (last, best):
    strip_optimizer(path)
print("done", flush=True)
"""
GENERAL = """
import torch
def strip_optimizer(f="best.pt", s=""):
    known = torch.load(f, map_location="cpu", weights_only=False)
    known["optimizer"], known["epoch"] = None, -1
    torch.save(known, s or f)
"""


class Training:
    """A run of the stand-in, with its watcher, as the supervisor starts them."""

    def __init__(self, root: Path, resume_from: Path | None = None) -> None:
        self.root, self.session, self.project = root, root / "session", root / "project"
        self.run_dir, self.secured = root / "runs" / "001", root / "secured" / "001"
        self.weights, self.log = self.run_dir / "weights", self.session / "train.log"
        (self.session / "lib" / "cloudtrain_training").mkdir(parents=True, exist_ok=True)
        for name, text in modules().items():
            (self.session / "lib" / "cloudtrain_training" / name).write_text(text)
        (self.project / "utils").mkdir(parents=True, exist_ok=True)
        (self.project / "train.py").write_text(TRAIN)
        (self.project / "utils" / "general.py").write_text(GENERAL)
        argv = [sys.executable, "train.py", "--data", str(root / "d.yaml"), "--device", "cpu", "--exist-ok"]
        plan = {
            "kind": "yolov5",
            "argv": [*argv, "--project", str(self.run_dir.parent), "--name", self.run_dir.name],
            "run_dir": str(self.run_dir),
            "secured": str(self.secured),
            "session": str(self.session),
            "project": str(self.project),
            "resume_from": str(resume_from) if resume_from else None,
        }
        (self.session / "plan.json").write_text(json.dumps(plan))

    def go(self, epochs: int) -> None:
        for epoch in range(epochs):
            (self.project / f"go-{epoch}").touch()

    def ours(self, module: str) -> subprocess.Popen[bytes]:
        code = f"import sys; sys.path[0] = sys.argv[1]; from cloudtrain_training.{module} import main; main(sys.argv[2])"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, str(self.session / "lib"), str(self.session / "plan.json")],
                cwd=self.project, stdout=log, stderr=log, env={**os.environ, "CLOUDTRAIN_LOOK_S": "0.05"},
            )  # fmt: skip

    def begin(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        trainer = self.ours("begin")
        fields = Path(f"/proc/{trainer.pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (self.session / "trainer").write_text(f"{boot} {trainer.pid} {fields[19]}\n")
        return trainer, self.ours("watch")

    def run(self) -> int:
        trainer, watcher = self.begin()
        code = trainer.wait(120)
        assert watcher.wait(60) == 0
        return code

    def kill_when(self, holds: Callable[[], Any]) -> None:
        trainer, watcher = self.begin()
        until(holds)
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        assert watcher.wait(60) == 0

    def epochs(self) -> list[int]:
        return [known["epoch"] for _, known in secured(self.secured)]

    def rows(self) -> list[int]:
        return [
            int(line.split(",")[0]) for line in (self.run_dir / "results.csv").read_text().splitlines()[1:]
        ]

    def text(self) -> str:
        return self.log.read_text()


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Training:
    """Killed after its second epoch."""
    made = Training(tmp_path / "first")
    made.go(2)
    made.kill_when(lambda: made.epochs()[:1] == [2])
    return made


def test_the_watcher_knows_epoch_and_metrics(run: Training) -> None:
    _, known = secured(run.secured)[0]
    assert (known["epoch"], known["metrics"]) == (2, {"metrics/mAP_0.5": 0.2})


def test_it_goes_on_and_is_never_restarted(run: Training) -> None:
    run.go(4)
    with (run.run_dir / "results.csv").open("a") as file:
        file.write(f"{2:20d},{0.9:20.5g}\n")  # killed between the row and its checkpoint
    assert run.run() == 0, run.text()
    assert "resumed at 2" in run.text()
    assert run.rows() == [0, 1, 2, 3]
    assert run.run() == 0
    assert "finished before" in run.text()
    assert "nothing to resume" not in run.text()


def test_a_moved_run_writes_into_its_new_folder(run: Training, tmp_path: Path) -> None:
    before = (run.run_dir / "results.csv").read_bytes()
    shutil.copytree(run.root, tmp_path / "second")
    moved = Training(tmp_path / "second")
    moved.go(4)
    assert moved.run() == 0, moved.text()
    assert moved.rows() == [0, 1, 2, 3]
    assert (run.run_dir / "results.csv").read_bytes() == before
    assert str(tmp_path / "second" / "d.yaml") in (moved.run_dir / "opt.yaml").read_text()


def test_a_torn_checkpoint_is_not_resumed_from(run: Training) -> None:
    last = run.weights / "last.pt"
    last.write_bytes(last.read_bytes()[:700])
    run.go(4)
    assert run.run() == 0, run.text()
    assert "last.pt is torn" in run.text()
    assert run.rows() == [0, 1, 2, 3]
    assert whole(last)


def test_another_machine_goes_on_from_the_copy(run: Training, tmp_path: Path) -> None:
    path, _ = secured(run.secured)[0]
    other = Training(tmp_path / "other", resume_from=path)
    other.go(4)
    assert other.run() == 0, other.text()
    assert other.rows() == [2, 3]
    assert not (run.run_dir / "weights" / "last.pt").samefile(other.weights / "last.pt")


def test_all_epochs_done_but_not_stripped(run: Training) -> None:
    torch = importlib.import_module("torch")
    last = run.weights / "last.pt"
    known = torch.load(last, weights_only=False)
    torch.save({**known, "epoch": 3}, last)
    assert run.run() == 0, run.text()
    assert "all epochs are done" in run.text()
    assert torch.load(last, weights_only=False)["epoch"] == -1
