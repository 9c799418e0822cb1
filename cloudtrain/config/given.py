"""What the user gave: the file's values with variables and flags laid over them.

It knows where each value came from, so that a problem names its line, or the flag or
variable that brought it. Short forms become long ones here; nothing is checked but
what would be lost by that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, cast, get_args, get_origin, get_type_hints

from cloudtrain.config.snapshot import bare_type, may_be_none
from cloudtrain.config.yamlfile import Document, Location, parse
from cloudtrain.errors import ConfigError, Problem
from cloudtrain.models.config import Config, Dataset, Host, Project

PREFIX = "CLOUDTRAIN_"
NOT_KEYS = frozenset(
    PREFIX + name
    for name in (
        *("HOME", "SANDBOX_DELAYS", "MACHINE", "RUN", "RUN_DIR"),
        *("DATA", "DATA_YAML", "WEIGHTS", "SESSION", "SERVICE"),
    )
)
"""Variables of ours that are no configuration keys: ours here, and a session's on its machine."""
SHORT: dict[type, str] = {Dataset: "path", Project: "path", Host: "address"}
"""Sections that may be written as a plain word, and the key that it means."""


@dataclass(slots=True)
class Given:
    """Values on their way to a `Config`, and who brought them."""

    document: Document
    shown: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[Location, str] = field(default_factory=dict[Location, str])
    problems: list[Problem] = field(default_factory=list[Problem])

    def problem(self, location: Location, message: str) -> Problem:
        """Return a problem at a key: with its line, or the name of what brought it."""
        around = [at for at in self.origins if location[: len(at)] == at]
        if around:
            return Problem(self.origins[max(around, key=len)], 0, message)
        return Problem(self.shown, self.document.line(location), message)

    def wrong(self, location: Location, message: str) -> None:
        """Note a problem at a key."""
        self.problems.append(self.problem(location, message))


def gather(
    document: Document, shown: str, overrides: Mapping[str, object], environ: Mapping[str, str]
) -> Given:
    """Put together file, variables and flags; the later win."""
    given = Given(document, shown, problems=list(document.problems))
    given.values = _section(given, Config, document.values, ())
    for key, variable, kind in keys():
        if environ.get(variable):
            _lay(given, key, environ[variable], kind, variable)
    _mistyped(given, environ)
    for key, value in overrides.items():
        if value is not None:
            _flag(given, key, value)
    return given


@cache
def keys() -> tuple[tuple[str, str, Any], ...]:
    """Return every dotted key of the configuration with its variable and its type."""
    return tuple((key, PREFIX + key.upper().replace(".", "_"), kind) for key, kind in _keys(Config, ""))


def written(location: Location) -> str:
    """Return a location as people write it: `hosts[0].port`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _keys(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for one in fields(kind):
        bare = bare_type(hints[one.name])
        if is_dataclass(bare) and isinstance(bare, type):
            yield from _keys(bare, f"{prefix}{one.name}.")
        else:
            yield f"{prefix}{one.name}", hints[one.name]


def _section(given: Given, kind: type, values: Mapping[str, Any], at: Location) -> dict[str, Any]:
    """Return a section's values in their long form; what is unknown stays for pydantic to refuse."""
    hints = get_type_hints(kind)
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            made[key] = value
        elif value is not None or may_be_none(hints[key]):
            made[key] = _shaped(given, hints[key], value, (*at, key))
    return made


def _shaped(given: Given, hint: Any, value: Any, at: Location) -> object:  # noqa: ANN401
    """Return a value in its long form, as far as its type says which that is."""
    bare = bare_type(hint)
    if value is None:
        return None
    if is_dataclass(bare) and isinstance(bare, type):
        return _shaped_section(given, bare, value, at)
    if get_origin(bare) is tuple:
        item = get_args(bare)[0]
        if not isinstance(value, (list, tuple)):
            return [_shaped(given, item, value, at)]
        several = cast("list[object]", value)
        return [_shaped(given, item, one, (*at, i)) for i, one in enumerate(several)]
    return _shaped_scalar(given, bare, value, at)


def _shaped_section(given: Given, kind: type, value: object, at: Location) -> object:
    if isinstance(value, dict):
        return _section(given, kind, cast("dict[str, Any]", value), at)
    if kind in SHORT and not isinstance(value, list):
        return {SHORT[kind]: _shaped(given, str, value, at)}
    return cast("object", value)


def _shaped_scalar(given: Given, kind: Any, value: object, at: Location) -> object:  # noqa: ANN401
    truth = isinstance(value, bool)
    if at == ("train", "gpus") and isinstance(value, list):
        return str(cast("list[object]", value))
    if kind is str and isinstance(value, (int, float)) and not truth:
        return given.document.texts.get(at, str(value))  # `python: 3.10` is meant as it is written
    if kind in (int, float) and truth:
        given.wrong(at, f"`{written(at)}` must be a number, not `{str(value).lower()}`")
    return value


def _flag(given: Given, key: str, value: object) -> None:
    kind = next((kind for known, _, kind in keys() if known == key), None)
    if kind is None and not key.startswith("train.args."):
        given.problems.append(Problem(f"flag for `{key}`", 0, f"unknown key `{key}`"))
        return
    _lay(given, key, value, kind, f"flag for `{key}`")


def _lay(given: Given, key: str, value: object, kind: Any, origin: str) -> None:  # noqa: ANN401
    at: Location = tuple(key.split(".")) if kind is not None else ("train", "args", key[len("train.args.") :])
    given.origins[at] = origin
    try:
        if isinstance(value, str) and kind is not None:
            value = _from_text(value, kind, origin)
    except ConfigError as error:
        given.problems += error.problems
        return
    here = given.values
    for part in at[:-1]:
        inner: object = here.get(str(part))
        here[str(part)] = dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) else {}
        here = here[str(part)]
    here[str(at[-1])] = _shaped(given, kind, value, at) if kind is not None else value


def _from_text(text: str, kind: Any, origin: str) -> object:  # noqa: ANN401
    """Read a variable's text: words are split at commas, what has structure is YAML."""
    bare = bare_type(kind)
    if may_be_none(kind) and text in ("null", "none"):
        return None
    if get_origin(bare) is tuple and get_args(bare)[0] is str and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if get_origin(bare) in (tuple, dict):
        return parse(f"value: {text}", origin).values.get("value")
    return text


def _mistyped(given: Given, environ: Mapping[str, str]) -> None:
    """A variable that nearly names a key was meant to: silence would rent the wrong machine."""
    from difflib import get_close_matches

    known = {variable for _, variable, _ in keys()}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known | NOT_KEYS:
            close = get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                given.problems.append(Problem(name, 0, f"no such variable; did you mean `{close[0]}`?"))
