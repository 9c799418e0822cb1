"""`cloudtrain init`: what lies in the folder is what the file says, and it loads as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.config import propose
from tests.config.files import read

DATA = "train: a\nval: b\nnames: [x]\n"
YOLO_SCRIPT = "from ultralytics import YOLO\nYOLO('yolo11n.pt').train(data='data.yaml')\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {"kind": "yolo", "dataset": "data.yaml"}),
        ({"data.yaml": DATA}, {"kind": "yolo", "dataset": "data.yaml", "model": "yolo11n.pt"}),
        ({"sets/coco.yaml": "train: a\nval: b\nnc: 3\n"}, {"dataset": "sets/coco.yaml"}),
        ({"a/b/data.yaml": DATA}, {"dataset": "a/b/data.yaml"}),
        ({"my set/ä: 1.yaml": DATA}, {"dataset": "my set/ä: 1.yaml"}),
        ({"other.yaml": "a: b\n", "broken.yaml": "a: [\n"}, {"dataset": "data.yaml"}),
        ({"train.py": "print()"}, {"kind": "script", "command": "python train.py", "dataset": None}),
        ({"main.py": ""}, {"kind": "script", "command": "python main.py"}),
        ({"train.py": YOLO_SCRIPT, "data.yaml": DATA}, {"kind": "yolo"}),
        ({"train.py": YOLO_SCRIPT}, {"kind": "script"}),
        (
            {"train.py": "", "models/yolo.py": "", "hubconf.py": "", "data.yaml": DATA},
            {"kind": "yolov5", "model": "yolov5s.pt"},
        ),
        ({"requirements.txt": "x\n", "train.py": ""}, {"requirements": "requirements.txt"}),
        ({"helmets.pt": "", "data.yaml": DATA}, {"model": "helmets.pt"}),
        ({"a.pt": "", "b.pt": ""}, {"model": "yolo11n.pt"}),
        ({".python-version": "3.10.4\n"}, {"python": "3.10.4"}),
        ({"environment.yml": "dependencies:\n  - python=3.10\n  - numpy\n"}, {"python": "3.10"}),
        ({".python-version": "pypy3\n"}, {"python": "3.12"}),
    ],
)
def test_a_proposal_sees_the_folder_and_loads_as_it_is(
    tmp_path: Path, files: dict[str, str], expected: dict[str, str | None]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    text = propose(tmp_path)
    config = read(tmp_path, text)
    found = {
        "kind": config.train.kind,
        "command": config.train.command,
        "model": config.train.model,
        "dataset": config.dataset.path,
        "requirements": config.environment.requirements,
        "python": config.environment.python,
    }
    assert {key: found[key] for key in expected} == expected
    assert text.startswith("# yaml-language-server: $schema=https://")
    # Written over its own file, it proposes the same again.
    assert propose(tmp_path) == text


def test_what_cannot_be_configured_is_mentioned(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text("dependencies: [numpy]\n")
    (tmp_path / "look.ipynb").write_text("{}")
    text = propose(tmp_path)
    assert "# environment.yml was found" in text
    assert "cloudtrain tunnel jupyter" in text


@pytest.mark.parametrize("name", ["true", "on", "3.10", "Ünïcode", "a'b\"c", "x" * 80])
def test_any_folders_name_makes_a_file_that_loads(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    read(folder, propose(folder))
