"""A commented cloudtrain.yaml for a folder, from what lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloudtrain.config.load import slug
from cloudtrain.errors import ConfigError
from cloudtrain.render import render


@dataclass(frozen=True, slots=True)
class Seen:
    """What a folder holds that a configuration wants to name."""

    name: str
    kind: str
    dataset: str | None
    script: str | None
    requirements: str | None
    model: str


def propose(folder: Path) -> str:
    """Return the text of a cloudtrain.yaml that loads as it is."""
    seen = look(folder)
    return render("cloudtrain.yaml.j2", seen=seen)


def look(folder: Path) -> Seen:
    """Look at a folder: its dataset, its training script, its requirements."""
    dataset = _dataset(folder)
    yolov5 = (folder / "train.py").is_file() and (folder / "models" / "yolo.py").is_file()
    script = next((name for name in ("train.py", "main.py") if (folder / name).is_file()), None)
    kind = (
        "yolov5"
        if yolov5
        else "script"
        if script and not _uses_ultralytics(folder / script, dataset)
        else "yolo"
    )
    return Seen(
        name=slug(folder.resolve().name),
        kind=kind,
        dataset=dataset,
        script=script or "train.py",
        requirements="requirements.txt" if (folder / "requirements.txt").is_file() else None,
        model="yolov5s.pt" if yolov5 else "yolo11n.pt",
    )


def _dataset(folder: Path) -> str | None:
    """Return the first YAML file here, or one folder down, that describes a dataset."""
    from cloudtrain.config.yamlfile import read

    candidates = [folder / "data.yaml", *sorted(folder.glob("*.y*ml")), *sorted(folder.glob("*/*.y*ml"))[:50]]
    for path in candidates:
        if not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        try:
            values = read(path).values
        except ConfigError:
            continue
        if "train" in values and "val" in values and ("names" in values or "nc" in values):
            return path.relative_to(folder).as_posix()
    return None


def _uses_ultralytics(script: Path, dataset: str | None) -> bool:
    """A script that only calls ultralytics on a dataset is what kind yolo does by itself."""
    text = script.read_text(errors="replace")
    return dataset is not None and "ultralytics" in text and "YOLO(" in text
