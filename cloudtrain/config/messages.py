"""What pydantic found wrong, in the words of the file's author."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from cloudtrain.config.given import Given, keys, written
from cloudtrain.config.snapshot import bare_type
from cloudtrain.config.yamlfile import Location
from cloudtrain.errors import Problem
from cloudtrain.models.config import Config

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
WORDS = {
    "missing": "is missing",
    "dataclass_type": "must be a mapping: `key: value` lines below it",
    "dict_type": "must be a mapping: `key: value` lines below it",
    "tuple_type": "must be a list",
    "string_type": "must be text, not {value}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "int_type": "must be a whole number, not {value}",
    "int_parsing": "must be a whole number, not {value}",
    "int_from_float": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "float_parsing": "must be a number, not {value}",
    "finite_number": "must be a number that ends, not {value}",
    "greater_than_equal": "must be {ge} or more, not {value}",
    "greater_than": "must be more than {gt}, not {value}",
    "less_than_equal": "must be {le} or less, not {value}",
}
"""By pydantic's error types: https://docs.pydantic.dev/latest/errors/validation_errors/."""
ARGUMENT = (
    'must be text, a number, true or false, not {value}; write a list or nothing as text: "[0, 1]" or "None"'
)


def problems(given: Given, errors: Sequence[Any]) -> list[Problem]:
    """Return one problem for each thing wrong: a union's several complaints are one."""
    found: dict[Location, Problem] = {}
    for error in errors:
        location = place(error)
        found.setdefault(location, given.problem(location, _message(error, location)))
    return list(found.values())


def place(error: Any) -> Location:  # noqa: ANN401 - pydantic's error details
    """Return where in the configuration an error is, without the branches of a union."""
    location: Location = error["loc"]
    return location[:3] if location[:2] == ("train", "args") else location


def tainted(error: Any) -> tuple[Location, ...]:  # noqa: ANN401
    """Return the keys that say nothing any more: the wrong one, and one it was mistyped from."""
    location = place(error)
    meant = (
        _close(str(location[-1]), [one for one, _ in _beside(location)]) if error["type"] in UNKNOWN else None
    )
    return (location, (*location[:-1], meant)) if meant else (location,)


def shown_value(value: object) -> str:
    """Return a value as the file would have it, short enough for a message."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text if len(text) <= 60 else text[:57] + '…'}`"


def nearest(given: str, known: Sequence[str]) -> str:
    """Return the end of a message that names the nearest of the known words, if one is near."""
    close = _close(given, known)
    return f"; did you mean `{close}`?" if close else ""


def _message(error: Any, location: Location) -> str:  # noqa: ANN401
    key, kind = written(location), str(error["type"])
    if kind in UNKNOWN:
        return f"unknown key `{key}`{_meant(location)}"
    if kind == "literal_error":
        choices = _choices(location)
        value = str(error["input"])
        listed = ", ".join(f"`{choice}`" for choice in choices)
        return f"`{key}` must be one of {listed}, not {shown_value(error['input'])}{nearest(value, choices)}"
    words = ARGUMENT if location[:2] == ("train", "args") and len(location) == 3 else WORDS.get(kind)
    if words is None:
        words = str(error["msg"]).removeprefix("Input ").removeprefix("Value error, ") + ", not {value}"
    limits = {
        name: f"{limit:g}" for name, limit in error.get("ctx", {}).items() if name in ("ge", "gt", "le")
    }
    return f"`{key}` {words.format(value=shown_value(error['input']), **limits)}"


def _meant(location: Location) -> str:
    """Say what an unknown key may have been meant for: its neighbour, another section, an argument."""
    name, known = str(location[-1]), [one for one, _ in _beside(location)]
    close = nearest(name, known)
    if close:
        return close
    elsewhere = [key for key, _, _ in keys() if key.rsplit(".", 1)[-1] == name]
    if len(elsewhere) == 1:
        return f"; did you mean `{elsewhere[0]}`?"
    if location[:-1] == ("train",):
        return f"; an argument of the trainer belongs under `train.args`: `args: {{{name}: …}}`"
    return f"; known: {', '.join(known)}" if known else ""


def _beside(location: Location) -> list[tuple[str, Any]]:
    """Return the keys that are known beside a location, with their types."""
    kind: Any = Config
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        hint = bare_type(get_type_hints(kind).get(part, object))
        kind = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if not is_dataclass(kind):
            return []
    hints = get_type_hints(kind)
    return [(one.name, hints[one.name]) for one in fields(kind)]


def _choices(location: Location) -> tuple[str, ...]:
    return get_args(bare_type(dict(_beside(location))[str(location[-1])]))


def _close(given: str, known: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    swapped = [one for one in known if sorted(one) == sorted(given)]  # the commonest slip of all
    if swapped:
        return swapped[0]
    return next(iter(get_close_matches(given, known, n=1, cutoff=0.6)), None)
