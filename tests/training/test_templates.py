from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cloudtrain.models.config import Config, Train
from cloudtrain.models.run import Layout
from cloudtrain.paths import shipped
from cloudtrain.training import build_command
from cloudtrain.training.scripts import script
from cloudtrain.training.session import starting

pytestmark = pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
SCRIPTS = sorted(path.name for path in [*shipped("templates").glob("se[rs]*-*.sh")])


def check(text: str) -> None:
    done = subprocess.run(
        ["shellcheck", "-s", "bash", "-"], input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "session-attach.sh"])
def test_scripts_as_they_are_sent(name: str) -> None:
    check(script(name))


def test_attach_stands_alone() -> None:
    check((shipped("templates") / "session-attach.sh").read_text())


@pytest.mark.parametrize("kind", ["yolo", "yolov5", "script"])
def test_start_and_supervisor(kind: str, tmp_path: Path) -> None:
    layout = Layout("/home/o'hara/a b")
    config = Config(train=Train(kind=kind, command="echo 'x y'"))  # pyright: ignore[reportArgumentType]
    argv, env = build_command(
        config, layout, python="/env/bin/python", run_dir=layout.run_dir(1),
        dataset_yaml="/d.yaml", model="m.pt", gpus=0,
    )  # fmt: skip
    supervisor, start = starting(
        layout, kind=kind, argv=argv, env=env, python="/env/bin/python", number=1, screen="s-001"
    )
    check(supervisor)
    check(start)
