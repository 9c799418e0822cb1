"""The two YOLO kinds with stand-ins for the trainers: what they are given, and what is prepared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.models.config import Config, Train
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import connect
from cloudtrain.training import status
from tests.support.sshd import Sshd
from tests.training.conftest import SLUG, Bench, facts

YOLOV5 = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
for name in ("data", "weights", "cfg", "device", "project", "name"):
    parser.add_argument(f"--{name}")
parser.add_argument("--imgsz", "--img", type=int)
parser.add_argument("--epochs", type=int)
parser.add_argument("--exist-ok", action="store_true")
parser.add_argument("--noval", action="store_true")
given = parser.parse_args()
run = pathlib.Path(given.project, given.name)
(run / "weights").mkdir(parents=True)
(run / "weights" / "last.pt").write_text("x")
(run / "opt.yaml").write_text(f"weights: ''\\nepochs: {given.epochs}\\n")
rows = [f"{epoch:20d},{0.5 / (epoch + 1):20.5g}" for epoch in range(given.epochs)]
(run / "results.csv").write_text("\\n".join([f"{'epoch':>20},{'metrics/mAP_0.5':>20}", *rows]) + "\\n")
pathlib.Path("told.json").write_text(json.dumps({"given": vars(given), "environ": dict(os.environ)}))
"""

ULTRALYTICS = """
import json, os, pathlib, sys
pathlib.Path("told.json").write_text(json.dumps({"given": sys.argv[1:], "environ": dict(os.environ)}))
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[bool], Bench]]:
    """Makes a machine that resolves names, or does not."""
    servers: list[Sshd] = []

    def make(online: bool) -> Bench:
        tools = tmp_path / "tools"
        tools.mkdir()
        (tools / "getent").write_text("#!/bin/sh\n" + ("echo 192.0.2.1 $2\n" if online else "exit 2\n"))
        (tools / "getent").chmod(0o755)
        server = Sshd(tmp_path / "machine", path=f"{tools}:/usr/bin:/bin").start()
        servers.append(server)
        layout = Layout(f"{server.home}/run")
        Path(layout.project).mkdir(parents=True)
        return Bench(server, connect(server.target), layout)

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An environment with a font where matplotlib has it."""
    font = tmp_path / "env/lib/python3.11/site-packages/matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"
    font.parent.mkdir(parents=True)
    font.write_text("a font")
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    return str(python)


def trained(bench: Bench, config: Config, python: str, model: str) -> dict[str, Any]:
    from cloudtrain.training import start

    session = start(
        bench.remote,
        config,
        bench.layout,
        slug=SLUG,
        python=python,
        number=1,
        dataset_yaml="/data/data.yaml",
        model=model,
        facts=facts(),
    )
    ended = bench.end(session)
    assert ended.exit_code == 0, bench.log(ended)
    return json.loads(Path(bench.layout.project, "told.json").read_text())


def test_yolov5_and_its_results(machine: Callable[[bool], Bench], python: str) -> None:
    bench = machine(False)
    Path(bench.layout.project, "train.py").write_text(YOLOV5)
    config = Config(train=Train(kind="yolov5", args={"epochs": 3, "img": 64, "noval": True}))
    told = trained(bench, config, python, "yolov5n.yaml")
    assert told["given"] == {
        "data": "/data/data.yaml", "weights": "", "cfg": "yolov5n.yaml", "device": "cpu",
        "project": f"{bench.layout.root}/runs", "name": "001", "imgsz": 64, "epochs": 3, "exist_ok": True, "noval": True,
    }  # fmt: skip
    assert Path(told["environ"]["YOLOV5_CONFIG_DIR"], "Arial.ttf").read_text() == "a font"
    found = status(bench.remote, bench.layout, config)
    assert found is not None
    assert (found.epoch, found.epochs) == (3, 3)
    assert found.metrics == {"metrics/mAP_0.5": pytest.approx(0.5 / 3, abs=1e-4)}  # pyright: ignore[reportUnknownMemberType]
    assert found.checkpoint == f"{bench.layout.run_dir(1)}/weights/last.pt"
    bench.remote.close()


@pytest.mark.parametrize("online", [True, False])
def test_ultralytics_is_told_when_there_is_no_network(
    machine: Callable[[bool], Bench], python: str, online: bool
) -> None:
    bench = machine(online)
    package = Path(bench.layout.project, "ultralytics")
    package.mkdir()
    for name, text in {
        "__init__": "",
        "utils": "class SETTINGS:\n    @staticmethod\n    def update(**_): pass\n",
        "cfg": f"def entrypoint():\n    exec({ULTRALYTICS!r})\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    config = Config(train=Train(kind="yolo", args={"epochs": 2, "classes": "[0, 1]"}))
    told = trained(bench, config, python, "yolo11n.yaml")
    assert told["given"][0] == "train"
    assert "classes=[0, 1]" in told["given"]
    environ = told["environ"]
    assert environ.get("YOLO_OFFLINE") == (None if online else "1")
    assert environ["YOLO_AUTOINSTALL"] == "false"
    config_dir = Path(environ["YOLO_CONFIG_DIR"], "Ultralytics")
    assert (config_dir / "Arial.ttf").read_text() == "a font"
    assert json.loads((config_dir / "settings.json").read_text())["sync"] is False
    assert str(config_dir).startswith(bench.layout.root)
    bench.remote.close()
