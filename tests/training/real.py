"""Real ultralytics on a CPU: a tiny dataset, a tiny model, and trainings that can be killed between steps."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudtrain.training.session import modules

MODEL = """\
nc: 2
scales: {n: [0.33, 0.125, 64]}
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[-1], 1, Detect, [nc]]
"""
ARGS = (
    "imgsz=32",
    "batch=8",
    "workers=0",
    "device=cpu",
    "plots=False",
    "optimizer=AdamW",
    "mosaic=0",
    "close_mosaic=0",
)


def dataset(folder: Path) -> Path:
    """Sixteen pictures of squares."""
    cv2, np = importlib.import_module("cv2"), importlib.import_module("numpy")
    for split in ("train", "val"):
        for number in range(8):
            picture = np.full((32, 32, 3), 40 + 10 * number, np.uint8)
            picture[8:24, 8:24] = 250 - 20 * number
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), picture)
            (folder / "labels" / split / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.5\n")
    made = folder / "data.yaml"
    made.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [dark, light]\n")
    return made


@dataclass
class Training:
    """One run folder with its session, driven as the supervisor does, without screen and ssh."""

    root: Path
    epochs: int = 4
    words: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str])
    resume_from: Path | None = None

    def __post_init__(self) -> None:
        self.session, self.lib = self.root / "session", self.root / "session" / "lib"
        (self.lib / "cloudtrain_training").mkdir(parents=True, exist_ok=True)
        for name, text in modules().items():
            (self.lib / "cloudtrain_training" / name).write_text(text)
        self.run_dir, self.secured = self.root / "runs" / "001", self.root / "secured" / "001"
        self.log = self.session / "train.log"
        self.weights = self.run_dir / "weights"
        (self.root / "project").mkdir(exist_ok=True)
        (self.root / "tiny.yaml").write_text(MODEL)

    def argv(self) -> list[str]:
        entry = "from cloudtrain_training.yolo import main; main()"
        data = self.root / "data" / "data.yaml"
        where = [f"project={self.run_dir.parent}", f"name={self.run_dir.name}", "exist_ok=True"]
        asked = [
            f"model={self.root}/tiny.yaml",
            f"data={data}",
            f"epochs={self.epochs}",
            *ARGS,
            *self.words,
            *where,
        ]
        return [sys.executable, "-c", entry, "detect", "train", *asked]

    def plan(self) -> dict[str, Any]:
        return {
            "kind": "yolo",
            "argv": self.argv(),
            "run_dir": str(self.run_dir),
            "secured": str(self.secured),
            "session": str(self.session),
            "project": str(self.root / "project"),
            "outputs": [],
            "resume_from": str(self.resume_from) if self.resume_from else None,
        }

    def begin(self) -> subprocess.Popen[bytes]:
        (self.session / "plan.json").write_text(json.dumps(self.plan()))
        env = {
            **os.environ,
            "PYTHONPATH": str(self.lib),
            "CLOUDTRAIN_SESSION": str(self.session),
            "CLOUDTRAIN_SECURED": str(self.secured),
            "YOLO_OFFLINE": "1",
            "YOLO_AUTOINSTALL": "false",
            "YOLO_CONFIG_DIR": str(self.root / "config"),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            **self.env,
        }
        start = "import sys; from cloudtrain_training.begin import main; main(sys.argv[1])"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", start, str(self.session / "plan.json")],
                cwd=self.root / "project",
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self) -> int:
        return self.begin().wait(180)

    def kill_when(self, holds: Callable[[], bool]) -> None:
        """Run until something is so, then kill without a word."""
        process = self.begin()
        end = time.monotonic() + 120
        while not holds():
            assert process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def rows(self) -> list[int]:
        lines = (self.run_dir / "results.csv").read_text().splitlines()[1:]
        return [int(float(line.split(",")[0])) for line in lines]

    def epoch(self) -> int:
        """The epoch of the newest secured checkpoint."""
        try:
            return json.loads((self.session / "secured").read_text())["epoch"]
        except OSError:
            return 0

    def inside(self, path: Path) -> dict[str, Any]:
        return importlib.import_module("torch").load(path, map_location="cpu", weights_only=False)
