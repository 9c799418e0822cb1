"""From where SSH answers to the training's start: on a machine from our image, and on a bare one.

Booted machines of the sandbox (root on Linux), real apt, a real environment. The project, the
connection and the cloud are the same; what differs is what `bake` has put into the image.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import Comparison, report
from cloudtrain.providers import sandbox

CONFIG = """\
name: bakery
provider: sandbox
instance: {{image: {image}}}
environment: {{manager: uv, python: "3.11", torch: none, packages: [six, numpy, pillow]}}
train: {{kind: script, command: "python train.py"}}
"""
ROUNDS = 3


class Bench:
    """One project in one sandbox with booted machines."""

    def __init__(self, root: Path) -> None:
        self.project = root / "project"
        self.project.mkdir()
        (self.project / "train.py").write_text("print('trained')\n")
        self.environment = {
            **os.environ,
            "CLOUDTRAIN_HOME": str(root / "home"),
            "CLOUDTRAIN_SANDBOX_MACHINES": "nspawn",
        }

    def call(self, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "cloudtrain", *words, "--json"]
        done = subprocess.run(
            command, cwd=self.project, env=self.environment, check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"cloudtrain {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer["result"]

    def up(self, image: str) -> float:
        """Return the seconds from a verified connection to the training's start."""
        (self.project / "cloudtrain.yaml").write_text(CONFIG.format(image=image))
        made = self.call("up", "-y")
        stages = {stage["stage"]: stage for stage in made["waterfall"]["stages"]}
        self.call("down", "--discard", "--stop-training")
        return stages["start training"]["end"] - stages["connect"]["end"]


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="ctb"))
    try:
        bench = Bench(root)
        (bench.project / "cloudtrain.yaml").write_text(CONFIG.format(image="auto"))
        bench.call("bake", "-y")
        # In turn, so that a busy minute hits both alike; `auto` is the image, the other a bare system.
        pairs = [(bench.up("auto"), bench.up("ubuntu-24.04")) for _ in range(ROUNDS)]
        baked, bare = zip(*pairs, strict=True)
        report("bake", [Comparison("up from the image", "up from a bare system", baked, bare, 0.2)])
    finally:
        sandbox.stop(root / "home" / "data" / "sandbox")
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
