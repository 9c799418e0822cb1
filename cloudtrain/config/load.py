"""From a file, flags and environment variables to one checked `Config`.

All problems come at once, each with its file and line, or with the flag or variable
that brought it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin, get_type_hints

from cloudtrain.config.snapshot import bare_type
from cloudtrain.errors import ConfigError, Problem
from cloudtrain.models.config import Config

if TYPE_CHECKING:
    from cloudtrain.config.yamlfile import Document, Location

FILE = "cloudtrain.yaml"
NOT_KEYS = frozenset({"CLOUDTRAIN_HOME"})
"""Environment variables of ours that are no configuration keys."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def find(start: Path) -> Path | None:
    """Return cloudtrain.yaml in `start` or in a folder above it."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def load(
    path: Path, *, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Read and check a file, with variables over it and flags (dotted keys) over both.

    Raises `ConfigError` with every problem at once.
    """
    from cloudtrain.config.yamlfile import read

    shown = path.name if path.parent.resolve() == Path.cwd() else str(path)
    document = read(path)
    problems = [replace(problem, file=shown) for problem in document.problems]
    values = _short_forms(document.values)
    origins = _apply(values, environ if environ is not None else os.environ, overrides or {})
    values.setdefault("name", slug(path.resolve().parent.name))
    config = _validate(values, document, origins, shown, problems)
    if config is not None:
        problems += _together(config, document, origins, shown)
    if problems or config is None:
        raise ConfigError(tuple(sorted(problems, key=lambda p: (p.file, p.line))))
    return config


def slug(text: str) -> str:
    """Turn a folder's name into a run's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "training"


def keys() -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of the configuration with its type."""
    yield from _keys(Config, "")


def _keys(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        bare = bare_type(hints[field.name])
        if is_dataclass(bare) and isinstance(bare, type):
            yield from _keys(bare, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", bare


def _short_forms(values: dict[str, Any]) -> dict[str, Any]:
    """Accept a plain string where only one thing can be meant."""
    made = dict(values)
    for key in ("dataset", "project"):
        if isinstance(made.get(key), str):
            made[key] = {"path": made[key]}
    for key in ("instance", "environment", "project", "dataset", "train", "lease", "access", "mirrors"):
        if key in made and made[key] is None:
            made[key] = {}
    instance: Any = made.get("instance")
    if isinstance(instance, dict):
        section = cast("dict[str, Any]", instance)
        if isinstance(section.get("type"), str):
            made["instance"] = {**section, "type": [section["type"]]}
    return made


def _apply(
    values: dict[str, Any], environ: Mapping[str, str], overrides: Mapping[str, object]
) -> dict[Location, str]:
    """Lay variables and flags over the file's values; return who brought which."""
    origins: dict[Location, str] = {}
    for key, kind in keys():
        variable = "CLOUDTRAIN_" + key.upper().replace(".", "_")
        if variable in environ and variable not in NOT_KEYS:
            _put(values, key, _split(environ[variable], kind))
            origins[tuple(key.split("."))] = variable
        if overrides.get(key) is not None:
            _put(values, key, _split(overrides[key], kind))
            origins[tuple(key.split("."))] = f"flag for `{key}`"
    return origins


def _split(value: object, kind: Any) -> object:  # noqa: ANN401 - a type
    if get_origin(kind) is tuple and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


def _put(values: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    here = values
    for part in path:
        inner: object = here.get(part)
        here[part] = dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) else {}
        here = here[part]
    here[last] = value


def _validate(
    values: dict[str, Any],
    document: Document,
    origins: dict[Location, str],
    shown: str,
    problems: list[Problem],
) -> Config | None:
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(Config)
    for final in (False, True):
        try:
            return adapter.validate_python(values)
        except ValidationError as error:
            errors = error.errors()
        as_text = [e["loc"] for e in errors if e["type"] == "string_type" and e["loc"] in document.texts]
        if final or not as_text:
            break
        for location in as_text:  # `python: 3.10` is meant as written, not as a number
            _set(values, location, document.texts[location])
    problems += [_problem(item, document, origins, shown) for item in errors]
    return None


def _set(values: Any, location: Location, value: object) -> None:  # noqa: ANN401
    for part in location[:-1]:
        values = values[part]
    values[location[-1]] = value


def _problem(item: Any, document: Document, origins: dict[Location, str], shown: str) -> Problem:  # noqa: ANN401
    location: Location = item["loc"]
    origin = next((name for at, name in origins.items() if location[: len(at)] == at), None)
    message = _message(item, location)
    if origin:
        return Problem(origin, 0, message)
    return Problem(shown, document.line(location), message)


def _message(item: Any, location: Location) -> str:  # noqa: ANN401
    key = ".".join(str(part) for part in location)
    kind = str(item["type"])
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key `{key}`{_suggest(str(location[-1]), _siblings(location))}"
    if kind == "literal_error":
        expected = str(item["ctx"]["expected"]).replace("'", "`")
        choices = tuple(re.findall(r"`([^`]*)`", expected))
        return f"`{key}` is {expected}, not `{item['input']}`{_suggest(str(item['input']), choices)}"
    if kind in ("dataclass_type", "dict_type"):
        return f"`{key}` must be a mapping: `key: value` lines below it"
    text = str(item["msg"])
    text = text.removeprefix("Input ").removeprefix("Value error, ")
    return f"`{key}` {text[:1].lower()}{text[1:]}, not `{item['input']}`"


def _suggest(given: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(given, known, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else (f"; known: {', '.join(known)}" if known else "")


def _siblings(location: Location) -> tuple[str, ...]:
    """Return the keys that are known beside an unknown one."""
    kind: Any = Config
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        hint = bare_type(get_type_hints(kind).get(str(part), object))
        kind = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if not is_dataclass(kind):
            return ()
    return tuple(field.name for field in fields(kind))


def _together(config: Config, document: Document, origins: dict[Location, str], shown: str) -> list[Problem]:
    """Check what only several keys together can say."""
    found: list[tuple[Location, str]] = []
    if not NAME.fullmatch(config.name):
        found.append(
            (
                ("name",),
                f"`name` must be lower-case letters, digits and dashes, 40 at most, not `{config.name}`",
            )
        )
    if config.train.kind == "script" and not config.train.command:
        found.append((("train",), "`train.kind` script needs a `train.command`"))
    if config.provider == "ssh" and not config.hosts:
        found.append((("provider",), "`provider` ssh needs `hosts:`, with an `address` each"))
    if config.dataset.path and config.dataset.source:
        found.append((("dataset",), "`dataset` has both `path` and `source`: give one"))
    if config.project.ref and not config.project.git:
        found.append((("project", "ref"), "`project.ref` needs `project.git`"))
    problems: list[Problem] = []
    for location, message in found:
        origin = origins.get(location)
        problems.append(
            Problem(origin, 0, message) if origin else Problem(shown, document.line(location), message)
        )
    return problems
