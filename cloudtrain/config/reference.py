"""docs/reference/config.md and its schema, made from the dataclasses, so they cannot drift."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cloudtrain.config.given import keys
from cloudtrain.config.schema import schema, schema_text
from cloudtrain.config.snapshot import bare_type
from cloudtrain.models.config import Config

HEAD = """\
<!-- made from cloudtrain/models/config.py: change it there -->

# cloudtrain.yaml

Every key has a default; `cloudtrain init` writes a file with what it sees in a folder.
A flag beats a variable, and a variable beats the file. A list of one may be written as one word.
Editors complete and check the file by [cloudtrain.schema.json](cloudtrain.schema.json).
"""
COLUMNS = "| key | values | default | variable | meaning |\n|---|---|---|---|---|"
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
LIMITS = {
    "minimum": "{:g} or more",
    "exclusiveMinimum": "more than {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "less than {:g}",
}


def pages() -> dict[str, str]:
    """Return the generated files by their names below docs/reference."""
    return {"config.md": config_page(), "cloudtrain.schema.json": schema_text()}


def config_page() -> str:
    """Return the page of every key."""
    made = schema()
    top = [one.name for one in fields(Config) if not _section(one.name)]
    parts = [HEAD, _table("", top, made["properties"])]
    for name, kind in _sections():
        inner = made["$defs"][kind.__name__]
        parts.append(f"\n## {name}\n\n{inner['description']}\n")
        rows = [one.name for one in fields(kind)]
        parts.append(_table(f"{name}.", rows, inner["properties"], kind))
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, type]]:
    for one in fields(Config):
        kind = _section(one.name)
        if kind is not None:
            yield one.name, kind


def _section(name: str) -> type | None:
    """Return the class of a key that is a section, or a list of them."""
    bare = bare_type(get_type_hints(Config)[name])
    inner = get_args(bare)[0] if get_origin(bare) is tuple else bare
    return inner if isinstance(inner, type) and is_dataclass(inner) else None


def _table(prefix: str, names: list[str], properties: dict[str, Any], kind: type = Config) -> str:
    hints = get_type_hints(kind)
    variables = {key: variable for key, variable, _ in keys()}
    rows: list[str] = []
    for name in names:
        found = properties[name]
        variable = variables.get(prefix + name)
        cells = (
            f"`{name}`",
            ", ".join([_values(hints[name]), *_limits(found)]),
            _default(found),
            f"`{variable}`" if variable else "",
            found["description"],
        )
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([COLUMNS, *rows, ""])


def _values(hint: Any) -> str:  # noqa: ANN401 - a type
    bare = bare_type(hint)
    if get_origin(bare) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(bare))
    if get_origin(bare) is tuple:
        return "list"
    if get_origin(bare) is dict:
        return "mapping"
    return NAMES[bare]


def _limits(found: dict[str, Any]) -> list[str]:
    forms = [found, *found.get("anyOf", [])]
    return [words.format(form[key]) for form in forms for key, words in LIMITS.items() if key in form]


def _default(found: dict[str, Any]) -> str:
    default = found.get("default")
    return "" if default in (None, "", [], {}) else f"`{json.dumps(default).strip(chr(34))}`"
