"""Any result as plain JSON values. Fields that a dataclass hides from its repr stay hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import PurePath
from typing import cast


def to_jsonable(value: object) -> object:
    """Return dataclasses as objects, times as ISO 8601, paths as text; secrets as `***`."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_jsonable(getattr(value, field.name)) if field.repr else "***"
            for field in fields(value)
        }
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return {str(key): to_jsonable(item) for key, item in items.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    return value
