"""From a file, flags and environment variables to one checked `Config`.

All problems come at once, each with its file and line, or with the flag or variable
that brought it. Nothing but the file is looked at: no path, no cloud.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloudtrain.errors import ConfigError, Problem
from cloudtrain.models.config import Config

if TYPE_CHECKING:
    from cloudtrain.config.given import Given
    from cloudtrain.config.yamlfile import Location

FILE = "cloudtrain.yaml"


def find(start: Path) -> Path | None:
    """Return cloudtrain.yaml in `start` or above it, but not above the user's home."""
    home = Path.home()
    here = start.absolute()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
        if folder == home:
            break
    return None


def load(
    path: Path, *, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Read and check a file, with variables over it and flags (dotted keys) over both.

    A flag that is None was not given. Raises `ConfigError` with every problem at once.
    """
    from cloudtrain.config.yamlfile import read

    shown = path.name if path.absolute().parent == Path.cwd() else str(path)
    return _checked(read(path, shown), shown, path.absolute().parent, overrides, environ)


def defaults(
    folder: Path, *, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Return what a folder without a file means: its name, variables and flags.

    Raises `ConfigError` as `load` does.
    """
    from cloudtrain.config.yamlfile import Document

    return _checked(Document(), FILE, folder, overrides, environ)


def slug(text: str) -> str:
    """Turn a folder's name into a run's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].rstrip("-") or "training"


def _checked(
    document: Any,  # noqa: ANN401 - a Document; its module is imported late
    shown: str,
    folder: Path,
    overrides: Mapping[str, object] | None,
    environ: Mapping[str, str] | None,
) -> Config:
    from cloudtrain.config.given import gather

    given = gather(document, shown, overrides or {}, os.environ if environ is None else environ)
    given.values.setdefault("name", slug(folder.resolve().name))
    config, tainted = _validate(given)
    problems = given.problems + (_together(config, given, tainted) if config is not None else [])
    if problems or config is None:
        raise ConfigError(tuple(sorted(problems, key=_in_order)), hint=_hint(problems))
    return config


def _in_order(problem: Problem) -> tuple[str, int]:
    return problem.file, problem.line


def _hint(problems: list[Problem]) -> str:
    unknown = any("unknown key" in problem.message for problem in problems)
    return "`cloudtrain config-schema` prints every key and what it means" if unknown else ""


def _validate(given: Given) -> tuple[Config | None, tuple[Location, ...]]:
    """Have pydantic check the values; what it refuses is noted, and left out in a second look.

    So the rules that tie keys together are checked as well, and all problems can be told
    at once. Returns a config, and the keys of which it says nothing.
    """
    from pydantic import TypeAdapter, ValidationError

    from cloudtrain.config.messages import place, problems, tainted

    adapter = TypeAdapter(Config)
    try:
        return adapter.validate_python(given.values), ()
    except ValidationError as error:
        errors = error.errors()
    given.problems += problems(given, errors)
    rest = copy.deepcopy(given.values)
    for item in errors:
        _remove(rest, place(item))
    try:
        return adapter.validate_python(rest), tuple(key for item in errors for key in tainted(item))
    except ValidationError:
        return None, ()


def _remove(values: dict[str, Any], location: Location) -> None:
    """Remove a key, or the list that the location is in."""
    key, *below = location
    inner: object = values.get(str(key))
    if below and isinstance(inner, dict):
        _remove(cast("dict[str, Any]", inner), tuple(below))
    else:
        values.pop(str(key), None)


def _together(config: Config, given: Given, tainted: tuple[Location, ...]) -> list[Problem]:
    """Check the rules, but none that reads a key of which nothing is known."""
    from cloudtrain.config.rules import broken

    return [
        given.problem(_given_one(given, rule.keys), rule.message)
        for rule in broken(config)
        if not any(_overlap(key, bad) for key in rule.keys for bad in tainted)
    ]


def _given_one(given: Given, keys: tuple[Location, ...]) -> Location:
    """Return the first of the keys that somebody wrote; a default has no line."""
    return next((key for key in keys if key in given.document.lines or key in given.origins), keys[0])


def _overlap(one: Location, other: Location) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]
