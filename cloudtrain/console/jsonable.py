"""Any result as plain JSON values. Fields that a dataclass hides from its repr stay hidden."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from typing import cast

HIDDEN = "***"


def to_jsonable(value: object) -> object:
    """Return dataclasses as objects, times as ISO 8601 in UTC, paths as text; secrets as `***`.

    JSON has no word for nan and infinity, which a diverged training reports: they are
    null. What is of no known kind is its text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_jsonable(getattr(value, field.name)) if field.repr else HIDDEN
            for field in fields(value)
        }
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return {str(key): to_jsonable(item) for key, item in items.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, (set, frozenset)):
        return sorted((to_jsonable(item) for item in cast("set[object]", value)), key=str)
    return _scalar(value)


def dumps(value: object, *, indent: int | None = None) -> str:
    """Return a value as strict JSON."""
    return json.dumps(to_jsonable(value), indent=indent, allow_nan=False)


def _scalar(value: object) -> object:
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Enum):
        return to_jsonable(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value) if isinstance(value, PurePath) else repr(value)
