"""A `Config` as JSON and back, without pydantic: the snapshot in the run folder.

It was valid when it was written, so reading it back checks shape only: fields that
this version does not know are dropped, fields it adds take their defaults.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from cloudtrain.models.config import Config

T = TypeVar("T")


def dump(config: Config) -> dict[str, object]:
    """Return a config as plain JSON values."""
    return cast("dict[str, object]", _plain(asdict(config)))


def from_dict(data: Mapping[str, object]) -> Config:
    """Return the config that `dump` was given."""
    return _build(Config, data)


def bare_type(hint: Any) -> Any:  # noqa: ANN401 - a type of any shape
    """Strip `Annotated` and `| None` from a type."""
    origin = get_origin(hint)
    if origin is Annotated:
        return bare_type(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return bare_type(next(arg for arg in get_args(hint) if arg is not type(None)))
    return hint


def may_be_none(hint: Any) -> bool:  # noqa: ANN401
    """Whether a type has None among its values."""
    if get_origin(hint) is Annotated:
        return may_be_none(get_args(hint)[0])
    return type(None) in get_args(hint)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        items = cast("dict[str, object]", value)
        return {key: _plain(item) for key, item in items.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return value


def _build(kind: type[T], data: Mapping[str, object]) -> T:
    hints = get_type_hints(kind)
    known = {field.name for field in fields(cast("Any", kind))}
    given = {key: _value(hints[key], value) for key, value in data.items() if key in known}
    return kind(**given)


def _value(hint: Any, value: object) -> object:  # noqa: ANN401
    if value is None:
        return None
    bare = bare_type(hint)
    if is_dataclass(bare) and isinstance(bare, type):
        return _build(bare, cast("Mapping[str, object]", value))
    if get_origin(bare) is tuple:
        item = get_args(bare)[0]
        return tuple(_value(item, one) for one in cast("list[object]", value))
    return value
