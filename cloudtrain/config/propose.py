"""A commented cloudtrain.yaml for a folder, from what lies in it.

It only looks: nothing of the folder is run or imported, and nothing is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.config.load import FILE, slug
from cloudtrain.errors import ConfigError
from cloudtrain.render import render

PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
WORDS = frozenset({"true", "false", "null"})
PYTHON = re.compile(r"3\.\d+(\.\d+)?")
BIGGEST = 1_000_000
"""Bytes of the largest YAML file that is looked into: a dataset's description is small."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a folder holds that a configuration wants to name. Texts are as YAML wants them."""

    name: str
    kind: str
    dataset: str | None
    command: str
    requirements: str | None
    model: str
    python: str
    conda_file: str | None
    notebooks: bool
    schema: str


def propose(folder: Path) -> str:
    """Return the text of a cloudtrain.yaml that loads as it is."""
    return render("cloudtrain.yaml.j2", seen=look(folder))


def look(folder: Path) -> Seen:
    """Look at a folder: its dataset, its training script, its requirements, its Python."""
    from cloudtrain.config.schema import ADDRESS

    dataset = _dataset(folder)
    script = next((name for name in ("train.py", "main.py") if (folder / name).is_file()), None)
    kind = _kind(folder, script, dataset)
    conda = next(
        (name for name in ("environment.yml", "environment.yaml") if (folder / name).is_file()), None
    )
    return Seen(
        name=_quoted(slug(folder.resolve().name)),
        kind=kind,
        dataset=_quoted(dataset) if dataset else None,
        command=f"python {script or 'train.py'}",
        requirements="requirements.txt" if (folder / "requirements.txt").is_file() else None,
        model=_quoted(_model(folder, "yolov5s.pt" if kind == "yolov5" else "yolo11n.pt")),
        python=_python(folder, conda),
        conda_file=conda,
        notebooks=any(folder.glob("*.ipynb")),
        schema=ADDRESS,
    )


def _kind(folder: Path, script: str | None, dataset: str | None) -> str:
    if (folder / "train.py").is_file() and (folder / "models" / "yolo.py").is_file():
        return "yolov5"
    if script is not None and not _only_calls_ultralytics(folder / script, dataset):
        return "script"
    return "yolo"


def _only_calls_ultralytics(script: Path, dataset: str | None) -> bool:
    """A script that only calls ultralytics on a dataset is what kind yolo does by itself."""
    text = script.read_text(errors="replace")
    return dataset is not None and "ultralytics" in text and "YOLO(" in text


def _dataset(folder: Path) -> str | None:
    """Return the first YAML file here, or up to two folders down, that describes a dataset."""
    for path in _yaml_files(folder):
        try:
            if path.name != FILE and _describes_dataset(path):
                return path.relative_to(folder).as_posix()
        except (ConfigError, OSError):
            continue
    return None


def _yaml_files(folder: Path) -> Iterator[Path]:
    yield folder / "data.yaml"
    yield from sorted(folder.glob("*.y*ml"))
    yield from sorted(folder.glob("*/*.y*ml"))[:50]
    yield from sorted(folder.glob("*/*/data.yaml"))[:50]


def _describes_dataset(path: Path) -> bool:
    from cloudtrain.config.yamlfile import read

    if not path.is_file() or path.stat().st_size > BIGGEST:
        return False
    values = read(path).values
    return "train" in values and "val" in values and ("names" in values or "nc" in values)


def _model(folder: Path, usual: str) -> str:
    """Return the one checkpoint that lies here, when it is just one."""
    found = sorted(path.name for path in folder.glob("*.pt"))
    return found[0] if len(found) == 1 else usual


def _python(folder: Path, conda: str | None) -> str:
    """Return the Python version that the folder asks for in so many words."""
    asked = [(".python-version", r"^\s*(\S+)")]
    asked += [(conda, r"^\s*-\s*[\"']?python\s*=+\s*([\d.]+)")] if conda else []
    for name, pattern in asked:
        path = folder / name
        found = re.search(pattern, path.read_text(errors="replace"), re.MULTILINE) if path.is_file() else None
        version = PYTHON.match(found[1]) if found else None
        if version:
            return version[0]
    return "3.12"


def _quoted(text: str) -> str:
    """Return a text as a YAML scalar, in quotes only where it needs them."""
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
