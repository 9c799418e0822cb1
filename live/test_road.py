"""The whole road on a real account: Miniconda from its own host, an image of ours, and with LIVE_GPU=1 a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.providers.aws.provider import AwsProvider

TYPE = os.environ.get("LIVE_TYPE", "t3.small")
GPU = os.environ.get("LIVE_GPU_TYPE", "g4dn.xlarge")
pytestmark = pytest.mark.live

CONFIG = """\
name: live-test
provider: aws
region: {region}
instance: {{type: {type}, volume_gb: {volume}}}
environment: {{manager: conda, torch: {torch}, packages: [six]}}
cuda: {{driver: {driver}}}
lease: {{hours: 2}}
train: {{kind: script, command: "python train.py", outputs: ["best.pt"]}}
"""
TRAIN = """\
import zipfile
import six
with zipfile.ZipFile("best.pt", "w") as made:
    made.writestr("archive/data.pkl", "x" * 1000)
    made.writestr("archive/version", "3")
"""
TRAIN_ON_GPU = """\
import torch
assert torch.cuda.is_available()
weight = torch.ones(512, 512, device="cuda", requires_grad=True)
for _ in range(50):
    loss = (weight @ weight).square().mean()
    loss.backward()
torch.save({"weight": weight.detach().cpu(), "gpu": torch.cuda.get_device_name(0)}, "best.pt")
"""


class Installed:
    """The command, in a project and a CLOUDTRAIN_HOME of its own."""

    def __init__(self, root: Path, region: str) -> None:
        self.project, self.region = root / "project", region
        self.project.mkdir()
        self.environ = {**os.environ, "CLOUDTRAIN_HOME": str(root / "home")}

    def configure(self, train: str, **given: str) -> None:
        """Write cloudtrain.yaml and train.py."""
        values = {"type": TYPE, "volume": "20", "torch": "none", "driver": "auto", "region": self.region}
        (self.project / "cloudtrain.yaml").write_text(CONFIG.format(**{**values, **given}))
        (self.project / "train.py").write_text(train)

    def call(self, *args: str) -> dict[str, Any]:
        """Run a verb to its end and return its answer."""
        done = subprocess.run(
            [sys.executable, "-m", "cloudtrain", *args, "--json"],
            cwd=self.project, env=self.environ, capture_output=True, text=True, check=False, timeout=3600,
        )  # fmt: skip
        assert done.returncode == 0, f"{args}: {done.stdout}\n{done.stderr[-3000:]}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer["result"]

    def wait_for_end(self) -> None:
        """Wait until the training has ended."""
        end = time.monotonic() + 600
        while self.call("status")["training"]["session"]["state"] == "running":
            assert time.monotonic() < end, "the training does not end"
            time.sleep(5)


@pytest.fixture
def installed(provider: AwsProvider, tmp_path: Path) -> Generator[Installed]:
    made = Installed(tmp_path, provider.clients.region)
    yield made
    made.call("down", "--discard", "--stop-training")
    made.call("images", "--prune", "-y")


def changed(up: dict[str, Any]) -> set[str]:
    return {stage["stage"] for stage in up["waterfall"]["stages"] if stage["outcome"] == "changed"}


def test_miniconda_and_an_image_of_ours(installed: Installed) -> None:
    """The real installer by its pinned digest, conda-forge, a bake, and an `up` from the image."""
    installed.configure(TRAIN)
    assert {"miniconda", "environment", "packages"} <= changed(installed.call("up", "-y"))
    assert installed.call("provision")["changed"] == 0
    installed.call("down", "--stop-training")
    image = installed.call("bake", "-y")["image"]["id"]
    assert [one["image"]["id"] for one in installed.call("images")["images"] if one["fits"]] == [image]
    warm = installed.call("up", "-y")
    assert changed(warm) <= {"cloud-init"}


@pytest.mark.skipif(os.environ.get("LIVE_GPU") != "1", reason="rents a GPU: LIVE_GPU=1")
@pytest.mark.parametrize("driver", ["auto", "nvidia", "runfile"])
def test_a_gpu_from_nothing(installed: Installed, driver: str) -> None:
    """The driver by each of its ways, PyTorch for it, a product on the GPU, and a short training."""
    installed.configure(TRAIN_ON_GPU, type=GPU, volume="45", torch="auto", driver=driver)
    up = installed.call("up", "-y")
    assert {"driver", "torch", "gpu"} <= changed(up)
    assert installed.call("provision")["changed"] == 0
    installed.wait_for_end()
    down = installed.call("down")
    assert any(one["complete"] for one in down["artifacts"])
