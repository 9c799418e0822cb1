"""Which secured copy stands in for a checkpoint that is torn on the machine.

A copy is called `NNNNN-<name>`, and two checkpoints may share a name: whose it is says its sidecar.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, cast

from cloudtrain.transfer.listing import Found, Wanted

FOLDER = "secured"
"""Below a session's folder at home."""
_COPY = re.compile(rf"{FOLDER}/\d{{5,}}-(.+)", re.DOTALL)


def root_of(log: str) -> PurePosixPath:
    """Return a run's folder on the machine, of the path of a session's log."""
    return PurePosixPath(log).parent.parent.parent


def folder_of(log: str) -> str:
    """Return the folder of a session's secured copies on the machine, of the path of its log."""
    return str(root_of(log) / FOLDER / PurePosixPath(log).parent.name)


def standing_for(one: Found, wanted: Wanted) -> str:
    """Return the path on the machine of the checkpoint whose secured copies do for this one."""
    # YOLO writes `best` in the same breath as `last`, and only `last` is secured.
    return one.remote if wanted.kind == "script" else str(PurePosixPath(one.remote).with_name("last.pt"))


def named(listed: tuple[Found, ...], path: str) -> tuple[Found, ...]:
    """Return the secured copies that bear the name of a checkpoint, newest first."""
    name = PurePosixPath(path).name
    copies = (one for one in listed if one.weights and _name(one.name) == name)
    return tuple(sorted(copies, key=lambda one: one.name, reverse=True))  # they are numbered


def own_copy(
    path: str, copies: tuple[Found, ...], sources: dict[str, str | None], found: tuple[Found, ...], log: str
) -> Found | None:
    """Return the newest of `copies` that is of the checkpoint at `path`, None when none is.

    `sources` says by a copy's name what its sidecar says. One without may only be of the
    single checkpoint of its name.
    """
    paths = [one.remote for one in found if one.weights]
    alone = Counter(PurePosixPath(one).name for one in paths)[PurePosixPath(path).name] == 1
    for copy in copies:
        source = sources.get(copy.name)
        if (alone and path in paths) if source is None else _same(source, path, paths, str(root_of(log))):
            return copy
    return None


def sidecar(destination: Path, name: str) -> dict[str, Any]:
    """Return what the sidecar at home says of a secured copy, nothing where it cannot be read."""
    try:
        known: Any = json.loads((destination / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", known) if isinstance(known, dict) else {}


def source_in(known: dict[str, Any]) -> str | None:
    """Return the path that a sidecar says its copy was made of."""
    source = known.get("source")
    return source if isinstance(source, str) and source else None


def _name(copy: str) -> str | None:
    match = _COPY.fullmatch(copy)
    return match[1] if match is not None else None


def _same(source: str, path: str, paths: list[str], root: str) -> bool:
    """Whether a sidecar means this path: a run may have been moved, or its folder named by a link."""
    if source == path or source.startswith(f"{root}/"):
        return source == path
    below = [one.removeprefix(root) for one in (*paths, path) if one.startswith(f"{root}/")]
    ends = max((one for one in below if source.endswith(one)), key=len, default=None)
    return ends is not None and root + ends == path
