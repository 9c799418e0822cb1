"""Writing and reading cloudtrain.yaml for the tests beside this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cloudtrain.config import load
from cloudtrain.errors import ConfigError
from cloudtrain.models.config import Config


def write(folder: Path, text: str) -> Path:
    path = folder / "cloudtrain.yaml"
    path.write_text(text)
    return path


def read(folder: Path, text: str, environ: Mapping[str, str] | None = None, **overrides: object) -> Config:
    return load(write(folder, text), overrides=dotted(overrides), environ=environ or {})


def problems(
    folder: Path, text: str, environ: Mapping[str, str] | None = None, **overrides: object
) -> list[str]:
    """Every problem as it is shown, the file by its bare name."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, overrides=dotted(overrides), environ=environ or {})
    return [str(problem).replace(str(path), "cloudtrain.yaml") for problem in caught.value.problems]


def dotted(overrides: Mapping[str, object]) -> dict[str, object]:
    """`lease__hours` stands for the key `lease.hours`."""
    return {key.replace("__", "."): value for key, value in overrides.items()}
