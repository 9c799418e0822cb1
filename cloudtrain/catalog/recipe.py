"""What an image of ours holds, and whether it is the one that a configuration wants.

The digest is of what was asked for, not of what came of it: a requirements file counts
by its name, and its content is looked at by the step, which then installs the difference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudtrain.models.config import Config
from cloudtrain.paths import shipped

AUTO = "auto"
DLAMI = "dlami"


@dataclass(frozen=True, slots=True)
class Recipe:
    """ami/recipe.yaml: the names of the steps that are baked, and why the others are not."""

    version: int
    base: str
    bake: tuple[str, ...]
    leave: Mapping[str, str]


def recipe() -> Recipe:
    """Read the recipe."""
    import yaml

    read: Any = yaml.safe_load((shipped("ami") / "recipe.yaml").read_text())
    return Recipe(read["version"], read["base"], tuple(read["bake"]), dict(read["leave"]))


def base_of(config: Config) -> str:
    """Return the image to bake from, which `auto` also falls back to."""
    if config.instance.image != AUTO:
        return config.instance.image
    return DLAMI if config.instance.dlami else recipe().base


def digest(config: Config) -> str:
    """Name what an image for this configuration holds, in 16 hex digits."""
    environment = config.environment
    asked = (
        recipe().version,
        base_of(config),
        config.runtime,
        config.docker.image,
        config.cuda.toolkit,
        config.cuda.driver,
        environment.manager,
        environment.python,
        environment.torch,
        environment.packages,
        environment.requirements,
        config.train.kind,
    )
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
