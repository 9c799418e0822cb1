"""Everything that can be wrong on this side, found before anything costs money."""

from __future__ import annotations

import os
from pathlib import Path

from cloudtrain.errors import TransferError, UsageError
from cloudtrain.models.config import Config
from cloudtrain.transfer.dataset import DatasetSource, inspect_dataset
from cloudtrain.transfer.push import project_tree
from cloudtrain.transfer.tree import Tree


def check_project(config: Config, base: Path, *, launches: bool = False) -> DatasetSource | None:
    """Check code, model, requirements and dataset; return what there is to push of the latter.

    Before something `launches`, look also whether all that is to be sent can be read: that takes a
    second for 100,000 files. Raises `UsageError`, `ConfigError` or `TransferError` with the next thing to do.
    """
    root = base / config.project.path
    if config.project.git is None:
        if not root.is_dir():
            raise UsageError(f"the project folder `{root}` does not exist", hint="set `project.path`")
        _check_requirements(config, root)
        _check_dockerfile(config, root)
        _check_script(config, root)
    _check_model(config, base)
    source = inspect_dataset(config, base)
    if source is None and config.train.kind != "script":
        raise UsageError(
            f"kind {config.train.kind} needs a dataset and none is set",
            hint="write `dataset: {path: data.yaml}` into cloudtrain.yaml",
        )
    if launches and config.project.git is None:
        _check_readable(project_tree(config, base), "or leave it out with `project.exclude`")
    if launches and source is not None:
        _check_readable(source.tree, "or take it out of the dataset")
    return source


def _check_readable(tree: Tree, otherwise: str) -> None:
    for entry in tree.files:
        if entry.source is not None and not os.access(entry.source, os.R_OK):
            raise TransferError(
                f"cannot read `{entry.source}`: permission denied",
                hint=f"change its permissions, {otherwise}",
            )


def _check_requirements(config: Config, root: Path) -> None:
    name = config.environment.requirements
    if name and not (root / name).is_file():
        raise UsageError(
            f"`environment.requirements` names `{name}`, which is not in `{root}`",
            hint="correct the name, or remove the line",
        )


def _check_dockerfile(config: Config, root: Path) -> None:
    name = config.docker.dockerfile if config.runtime == "docker" else None
    if name and not (root / name).is_file():
        raise UsageError(
            f"`docker.dockerfile` names `{name}`, which is not in `{root}`",
            hint="correct the name, or use `docker.image`",
        )


def _check_script(config: Config, root: Path) -> None:
    if config.train.kind == "yolov5" and not (root / "train.py").is_file():
        raise UsageError(
            f"kind yolov5 needs a yolov5 checkout, and `{root}` has no train.py",
            hint="set `project: {git: https://github.com/ultralytics/yolov5}`, or point `project.path` at a checkout",
        )
    if config.train.kind == "script":
        missing = _missing_script(config.train.command or "", root)
        if missing:
            raise UsageError(
                f"`train.command` runs `{missing}`, which is not in `{root}`",
                hint="correct `train.command` or `project.path`",
            )


def _missing_script(command: str, root: Path) -> str | None:
    """Return the first Python file that the command names and the project lacks."""
    for word in command.split():
        plain = word.strip("'\"")
        if plain.endswith(".py") and not plain.startswith(("/", "~", "$")):
            return None if (root / plain).is_file() else plain
    return None


def _check_model(config: Config, base: Path) -> None:
    model = config.train.model
    looks_local = "/" in model or model.startswith(("~", "."))
    if config.train.kind != "script" and looks_local and not (base / model).is_file():
        raise UsageError(
            f"`train.model` names the file `{model}`, which is not there",
            hint="correct the path, or use a name such as yolo11n.pt",
        )
