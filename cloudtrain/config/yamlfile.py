"""YAML with the line of every key, and with the text that every scalar was written as.

YAML 1.1 has traps that a training configuration meets: `on` is a boolean and
`3.10` the number 3.1. Only true and false are booleans here, and the text of a
scalar is kept, so that a field which wants text gets what was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from cloudtrain.errors import ConfigError, Problem

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader whose only booleans are true and false."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":timestamp"))]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


@dataclass(slots=True)
class Document:
    """What a file said: its values, and where and how each was written. Lines are 1-based."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: dict[Location, int] = field(default_factory=dict[Location, int])
    texts: dict[Location, str] = field(default_factory=dict[Location, str])
    problems: list[Problem] = field(default_factory=list[Problem])

    def line(self, location: Location) -> int:
        """Return the line of a location, or of the nearest thing around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read(path: Path) -> Document:
    """Read a file. Raises `ConfigError` when it is not YAML at all, or not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError((Problem(str(path), 0, f"cannot be read: {error}"),)) from error
    try:
        node: Any = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 0
        hint = "indent with spaces, not with tabs" if "\\t" in str(error.problem) else ""
        raise ConfigError((Problem(str(path), line, f"not YAML: {error.problem}"),), hint=hint) from error
    except yaml.YAMLError as error:
        raise ConfigError((Problem(str(path), 0, f"not YAML: {error}"),)) from error
    document = Document()
    if node is None:
        return document
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError((Problem(str(path), 1, "must be a mapping: `key: value` lines"),))
    loader = _Loader(text)
    try:
        document.values = cast("dict[str, Any]", _value(loader, node, (), document, str(path)))
    finally:
        loader.dispose()
    return document


def _value(loader: _Loader, node: Any, at: Location, document: Document, file: str) -> object:  # noqa: ANN401
    document.lines.setdefault(at, int(node.start_mark.line) + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, at, document, file)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*at, i), document, file) for i, item in enumerate(node.value)]
    document.texts[at] = str(node.value)
    make: Any = loader.construct_object  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        return make(node, deep=True)
    except yaml.YAMLError as error:
        document.problems.append(Problem(file, int(node.start_mark.line) + 1, f"not understood: {error}"))
        return None


def _mapping(loader: _Loader, node: Any, at: Location, document: Document, file: str) -> dict[str, object]:  # noqa: ANN401
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), int(key_node.start_mark.line) + 1
        if key in found:
            first = document.lines[*at, key]
            document.problems.append(Problem(file, line, f"`{key}` is given twice, first in line {first}"))
        document.lines[*at, key] = line
        found[key] = _value(loader, value_node, (*at, key), document, file)
    return found
