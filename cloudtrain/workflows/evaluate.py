"""`evaluate`: what a fetched YOLO checkpoint is worth on images it never saw.

Loading a checkpoint runs code from it (it is a pickle), so nothing but this verb ever
does, and only when asked. ultralytics is AGPL-3.0 and comes with the extra `train`;
it runs in a process of its own, without network, with a configuration folder that
is thrown away, so it leaves nothing in the user's.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtrain.config import from_dict, load
from cloudtrain.errors import CloudtrainError, UsageError
from cloudtrain.events import Note, Reporter
from cloudtrain.journal.folder import RunFolder, all_runs

PICTURES = 12
"""Held-out images in the picture of detections."""
COLUMNS = 4
GREEN, BLACK = (80, 220, 80), (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, on how many held-out images and objects; `picture` shows detections."""

    weights: Path
    map50: float
    map50_95: float
    images: int
    objects: int
    picture: Path | None


def evaluate_run(
    base: Path, *, name: str | None, weights: Path | None, data: Path | None, reporter: Reporter
) -> Evaluation:
    """Evaluate the newest best.pt that came home from the folder's newest run, or `weights`.

    `data` defaults to the configured dataset. The picture lies beside the weights as
    detections.jpg. Raises `UsageError` when there is nothing to evaluate, or nothing
    to evaluate it with.
    """
    run = _newest_run(base, name)
    checkpoint = weights or _newest_weights(run, base, name)
    data_yaml = data or _configured_data(run, base)
    reporter.emit(Note(f"evaluating {checkpoint} on the images of {data_yaml}"))
    return evaluate(checkpoint, data_yaml, checkpoint.with_name("detections.jpg"))


def evaluate(weights: Path, data_yaml: Path, picture: Path | None = None) -> Evaluation:
    """Measure `weights` on the `val` images of `data_yaml`; draw some into `picture` (JPEG).

    Runs the pickle in `weights`. Raises `UsageError` for a missing file or extra, and
    `CloudtrainError` with ultralytics' own last words when it fails.
    """
    for path in (weights, data_yaml):
        if not path.is_file():
            raise UsageError(f"`{path}` does not exist", hint="`--weights` and `--data` name other files")
    if importlib.util.find_spec("ultralytics") is None:
        raise UsageError(
            "evaluating needs ultralytics, which is not installed (AGPL-3.0)",
            hint="`pip install 'cloudtrain[train]'`",
        )
    with tempfile.TemporaryDirectory(prefix="cloudtrain-evaluate-") as scratch:
        found = _measure(Path(scratch), weights.resolve(), data_yaml.resolve(), picture)
    return Evaluation(
        weights=weights,
        map50=float(found["map50"]),
        map50_95=float(found["map50_95"]),
        images=int(found["images"]),
        objects=int(found["objects"]),
        picture=picture,
    )


def _newest_run(base: Path, name: str | None) -> RunFolder | None:
    """Return the newest run with a checkpoint at home, ended or not."""
    for folder in reversed(all_runs()):
        record = folder.record()
        fits = record.name == name if name else Path(record.project) == base
        if fits and _checkpoints(folder):
            return folder
    return None


def _newest_weights(run: RunFolder | None, base: Path, name: str | None) -> Path:
    if run is None:
        what = f"run `{name}`" if name else f"`{base}`"
        raise UsageError(
            f"no best.pt of {what} is at home",
            hint="`cloudtrain fetch-weights` brings it, `--weights FILE` names another",
        )
    return _checkpoints(run)[-1]


def _checkpoints(folder: RunFolder) -> list[Path]:
    """Every session's best.pt, oldest session first: their folders are numbered."""
    return sorted(folder.artifacts.glob("*/**/best.pt"))


def _configured_data(run: RunFolder | None, base: Path) -> Path:
    """Return the data.yaml of the folder's configuration, or of the run's where that is gone."""
    file = base / "cloudtrain.yaml"
    stored = run.load_config() if run else None
    if file.is_file():
        path, root = load(file, overrides={}).dataset.path, base
    else:
        path = from_dict(stored).dataset.path if stored else None
        root = Path(run.record().project) if run else base
    if path is None or not path.endswith((".yaml", ".yml")):
        raise UsageError("it is not known what to evaluate on", hint="name it: `--data data.yaml`")
    return root / path


def _measure(scratch: Path, weights: Path, data_yaml: Path, picture: Path | None) -> dict[str, Any]:
    answer = scratch / "answer.json"
    _place_font(scratch / "Ultralytics")
    environment = {
        **os.environ,
        "TMPDIR": str(scratch),  # torch leaves a folder of its own in it
        "YOLO_CONFIG_DIR": str(scratch),
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, (_package(), os.environ.get("PYTHONPATH", "")))),
    }
    command = [
        sys.executable,
        "-m",
        "cloudtrain.workflows.evaluate",
        str(weights),
        str(data_yaml),
        str(answer),
    ]
    command += [str(picture.resolve())] if picture else []
    done = subprocess.run(command, cwd=scratch, env=environment, text=True, capture_output=True, check=False)
    if done.returncode != 0 or not answer.is_file():
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise CloudtrainError(
            f"ultralytics could not evaluate `{weights}`: {said[-1] if said else 'it said nothing'}",
            hint="the file must be a YOLO checkpoint for the classes of the data.yaml",
        )
    return json.loads(answer.read_text())


def _package() -> str:
    """Return the folder to import this package from; a checkout need not be installed."""
    return str(Path(__file__).resolve().parents[2])


def _place_font(folder: Path) -> None:
    """Put any TrueType font where ultralytics would otherwise download one."""
    folder.mkdir(parents=True)
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return
    font = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    if font.is_file():
        shutil.copyfile(font, folder / "Arial.ttf")


def _evaluate_here(weights: str, data_yaml: str, answer: str, picture: str | None) -> None:
    """Do it in this process: ultralytics writes into the working folder and to stdout."""
    model: Any = _foreign("ultralytics").YOLO(weights)
    metrics: Any = model.val(data=data_yaml, plots=False, verbose=False, workers=0)
    files = [str(file) for file in _held_out(data_yaml)]
    if picture:
        size = int(model.overrides.get("imgsz", 640))
        _draw(model.predict(files[:PICTURES], imgsz=size, conf=0.3, verbose=False), Path(picture))
    found = {
        "map50": float(metrics.box.map50),
        "map50_95": float(metrics.box.map),
        "images": len(files),
        "objects": int(sum(metrics.nt_per_class)),
    }
    Path(answer).write_text(json.dumps(found))


def _foreign(module: str) -> Any:  # noqa: ANN401 - none of them has types to rely on
    """Import what only the extra `train` brings."""
    return importlib.import_module(module)


def _held_out(data_yaml: str) -> list[Path]:
    """Return the `val` images as ultralytics finds them, sorted."""
    data = _foreign("ultralytics.data.utils")
    formats, val = data.IMG_FORMATS, data.check_det_dataset(data_yaml)["val"]
    found: list[Path] = []
    for place in map(Path, val if isinstance(val, list) else [val]):  # pyright: ignore[reportUnknownArgumentType]
        listed = place.read_text().splitlines() if place.is_file() else []
        found += [(place.parent / line).resolve() for line in listed if line.strip()]
        found += [file for file in place.rglob("*") if file.suffix[1:].lower() in formats]
    return sorted(found)


def _draw(results: Any, picture: Path) -> None:  # noqa: ANN401 - ultralytics has no types
    """Write the drawn images as a grid, enlarged to be looked at."""
    vision, np = _foreign("cv2"), _foreign("numpy")
    tiles: list[Any] = [vision.resize(_enlarged(result), (480, 480)) for result in results]
    while len(tiles) % COLUMNS:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    part = picture.with_name(f".{picture.stem}.part{picture.suffix}")
    vision.imwrite(str(part), np.vstack(rows))
    part.replace(picture)


def _enlarged(result: Any) -> Any:  # noqa: ANN401 - ultralytics has no types
    """Draw one result's boxes on its image at three times the size: small images stay legible."""
    vision = _foreign("cv2")
    height, width = result.orig_shape
    factor = max(1, round(480 / max(height, width)))
    picture: Any = vision.resize(result.orig_img, None, fx=factor, fy=factor)
    for box, kind, sure in zip(result.boxes.xyxy, result.boxes.cls, result.boxes.conf, strict=True):
        left, top, right, bottom = (int(value) * factor for value in box.tolist())
        vision.rectangle(picture, (left, top), (right, bottom), GREEN, 2)
        text = f"{result.names[int(kind)]} {float(sure):.2f}"
        base = top - 4 if top > 20 else bottom + 14
        vision.rectangle(picture, (left, base - 13), (left + 9 * len(text), base + 4), GREEN, -1)
        vision.putText(picture, text, (left + 2, base), vision.FONT_HERSHEY_SIMPLEX, 0.45, BLACK, 1)
    return picture


if __name__ == "__main__":
    _evaluate_here(sys.argv[1], sys.argv[2], sys.argv[3], (sys.argv[4:] or [None])[0])
