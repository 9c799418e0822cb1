"""The main job with the real trainer: a real environment, real training, a real TensorBoard.

It installs PyTorch and ultralytics on an emulated machine (3 GB the first time), so
it is one test that walks the whole road instead of many that each begin anew.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.road import Road, home, until

pytestmark = [pytest.mark.road, pytest.mark.timeout(900)]

CONFIG = """\
name: yolo-road
provider: sandbox
environment: {manager: uv, python: "3"}
dataset: {path: data/data.yaml}
train:
  kind: yolo
  model: yolo11n.yaml
  args: {epochs: 2, imgsz: 64, batch: 8, workers: 0, plots: false, device: cpu}
"""
MAKE = Path(__file__).parents[2] / "examples" / "digits" / "make_dataset.py"


@pytest.fixture
def way(tmp_path: Path) -> Generator[Road]:
    with home(tmp_path / "home") as folder:
        made = Road(tmp_path / "road", folder)
        (made.project / "cloudtrain.yaml").write_text(CONFIG)
        data = made.project / "data"
        subprocess.run(
            [sys.executable, str(MAKE), "--out", str(data), "--train", "24", "--held-out", "8"],
            check=True,
            capture_output=True,
        )
        yield made
    shutil.rmtree(tmp_path / "home", ignore_errors=True)  # 6 GB


def curves(address: str) -> dict[str, dict[str, object]]:
    """The curves that TensorBoard shows, by run."""
    with urllib.request.urlopen(f"{address}/data/plugin/scalars/tags", timeout=30) as answer:
        found: dict[str, dict[str, object]] = json.load(answer)
    return found


def test_a_real_training_comes_home_whole(way: Road) -> None:
    way.call("up", "-y", timeout=600)
    tunnel = way.start("tunnel", "tensorboard", "--port", "0", "--no-browser", "--json")
    try:
        assert tunnel.stdout is not None
        address = json.loads(tunnel.stdout.readline())["result"]["tunnels"][0]["url"]
        way.call("logs", "-f", timeout=300)
        until(
            lambda: "metrics/mAP50(B)" in curves(address).get("001", {}), timeout=60
        )  # it reads now and then
    finally:
        tunnel.send_signal(signal.SIGINT)
        tunnel.communicate(timeout=30)
    assert tunnel.returncode == 0
    status = way.json("status")["result"]["training"]
    assert (status["session"]["state"], status["epoch"], status["epochs"]) == ("finished", 2, 2)
    fetched = way.json("fetch-weights")["result"]["artifacts"]
    best = next(one for one in fetched if one["kind"] == "best")
    assert best["complete"]
    assert best["epoch"] in (1, 2)
    results = next(Path(one["path"]) for one in fetched if one["path"].endswith("results.csv"))
    rows = csv.DictReader(results.read_text().splitlines())
    assert [row["epoch"] for row in rows] == ["1", "2"]
    second = way.call("train", "--weights", "best")
    assert "nothing changed" in second.stderr
    assert way.call("down", "--stop-training").returncode == 0
    assert way.left() == []
    assert Path(best["path"]).is_file()
