"""A search for hyperparameters by the installed command: started, looked at, brought home."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.hosts import HostRoad, listed
from tests.support.sshd import Sshd
from tests.training.test_sweep import STAND_IN

pytestmark = pytest.mark.road
CONFIG = f"""\
name: {{name}}
provider: ssh
hosts: [{{host}}]
environment: {{{{manager: existing, python: {sys.executable}, torch: none}}}}
train: {{{{kind: yolov5, model: tiny.yaml, args: {{{{img: 32}}}}}}}}
dataset: {{{{path: data/data.yaml}}}}
sweep: {{{{trials: 6, workers: 4}}}}
"""


def test_a_search_from_up_to_down(tmp_path: Path, sshd: Sshd) -> None:
    way = HostRoad(tmp_path / "road", tmp_path / "home", host=listed(sshd), config=CONFIG)
    (way.project / "train.py").write_text(STAND_IN)
    (way.project / "tiny.yaml").write_text("nc: 1\n")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (way.project / "data" / kind / split).mkdir(parents=True)
        (way.project / "data" / "images" / split / "1.png").write_bytes(b"png")
        (way.project / "data" / "labels" / split / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (way.project / "data" / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames: [one]\n"
    )
    try:
        way.call("up", "-y")
        way.wait_for_end()
        said = way.call("sweep", "status").stdout
        assert "trials      6 of 6 are done" in said, way.call("logs").stdout
        assert said.count("ended on cpu") == 4
        known = json.loads(way.call("sweep", "status", "--json").stdout)["result"]["sweep"]
        assert sum(one["done"] for one in known["workers"]) == 6
        fetched = way.json("fetch-weights")["result"]
        names = {Path(one["path"]).name: Path(one["path"]) for one in fetched["artifacts"]}
        assert {"evolve.csv", "hyp_evolve.yaml"} <= set(names)
        assert len(names["evolve.csv"].read_text().splitlines()) == 7
        way.call("down", "--remove")
    finally:
        way.call("down", "--discard", "--stop-training", code=None)


def test_what_is_no_search_says_so(tmp_path: Path, sshd: Sshd) -> None:
    way = HostRoad(tmp_path / "road", tmp_path / "home", host=listed(sshd))
    try:
        way.call("up", "-y")
        assert "no search" in way.call("sweep", "status", code=2).stderr
    finally:
        way.call("down", "--discard", "--stop-training", code=None)
