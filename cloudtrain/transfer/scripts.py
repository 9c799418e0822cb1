"""The scripts that run on the machine, read as they are and joined in order."""

from __future__ import annotations

from functools import cache

from cloudtrain.paths import shipped


@cache
def script(*names: str) -> str:
    """Return `templates/<name>.sh` of every name, one after the other."""
    folder = shipped("templates")
    return "".join((folder / f"{name}.sh").read_text(encoding="utf-8") for name in names)
