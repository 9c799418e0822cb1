"""YAML with the line of every key, and with the text that every scalar was written as.

YAML 1.1 has traps that a training configuration meets: `on` is a boolean, `1:30` the
number 90, `010` eight, `1e-3` text, and `3.10` the number 3.1. Scalars are read by
YAML 1.2's core schema instead (https://yaml.org/spec/1.2.2/#103-core-schema), and
the text of each is kept, so that a field which wants text gets what was written.

Nothing here knows what the keys mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cloudtrain.errors import ConfigError, Problem

Location = tuple[str | int, ...]

PLAINLY = (
    ("\\t", "a tab where only spaces can indent"),
    (
        "mapping values are not allowed here",
        "a `:` that cannot stand here: indent, or put the value in quotes",
    ),
    ("could not find expected ':'", "a key without `:` after it"),
    ("expected <block end>", "the indentation does not match the lines above"),
    ("expected a single document", "a second document after `---`: there can be only one"),
    ("found undefined alias", "an alias `*…` without its anchor `&…`"),
    ("while scanning a quoted scalar", "a quote that is never closed"),
)
"""The parser's words for the mistakes people make, and ours."""


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


def read(path: Path, shown: str | None = None) -> Document:
    """Read a file, calling it `shown` in messages.

    Raises `ConfigError` when it is not YAML at all, or not a mapping; what is wrong with
    single values is in the document's `problems`.
    """
    name = shown or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            (Problem(name, 0, "there is no such file"),), hint="`cloudtrain init` writes one"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError((Problem(name, 0, "is not UTF-8 text"),), hint="save it as UTF-8") from error
    except OSError as error:
        raise ConfigError((Problem(name, 0, f"cannot be read: {error.strerror}"),)) from error
    return parse(text, name)


def parse(text: str, shown: str) -> Document:
    """Read a text as `read` reads a file."""
    try:
        node: Any = yaml.compose(text, Loader=_Loader)
        document = Document()
        if node is None:
            return document
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError((Problem(shown, 1, "must be a mapping: `key: value` lines"),))
        _Reading(document, shown).document(node)
    except yaml.YAMLError as error:
        raise ConfigError((Problem(shown, _line_of(error, text), f"not YAML: {_said(error)}"),)) from error
    except RecursionError as error:
        raise ConfigError((Problem(shown, 0, "not YAML: nested too deep"),)) from error
    return document


def _said(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error).splitlines()[0]
    words = f"{error.context or ''} {error.problem or ''}".strip()
    plain = next((ours for theirs, ours in PLAINLY if theirs in words), None)
    return plain or str(error.problem)


def _line_of(error: yaml.YAMLError, text: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError):
        quoted = "quoted scalar" in str(error.context)  # it began there; it "fails" at the file's end
        mark = error.context_mark if quoted else error.problem_mark
        return mark.line + 1 if mark else 0
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 0


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""


def _whole(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _real(_: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(node.value).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
}
_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _CORE.items():
    _Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)


@dataclass(slots=True)
class _Reading:
    """One walk over the nodes of a file."""

    into: Document
    shown: str
    loader: _Loader = field(default_factory=lambda: _Loader(""))
    inside: list[int] = field(default_factory=list[int])

    def document(self, node: yaml.MappingNode) -> None:
        try:
            self.into.values = self._mapping(node, ())
        finally:
            self.loader.dispose()

    def _value(self, node: Any, at: Location) -> object:  # noqa: ANN401 - the parser has no types
        self.into.lines.setdefault(at, int(node.start_mark.line) + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if id(node) in self.inside:
            self._wrong(node, "an alias that contains itself")
            return None
        self.inside.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, at)
            return [self._value(item, (*at, i)) for i, item in enumerate(node.value)]
        finally:
            self.inside.pop()

    def _scalar(self, node: yaml.ScalarNode, at: Location) -> object:
        self.into.texts[at] = str(node.value)
        make: Any = self.loader.construct_object  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        try:
            return make(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            said = _said(error) if isinstance(error, yaml.YAMLError) else str(error)
            self._wrong(node, f"not understood: {said}")
            return None

    def _mapping(self, node: Any, at: Location) -> dict[str, Any]:  # noqa: ANN401
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong(key_node, "a key must be a plain word")
                continue
            key, line = str(key_node.value), int(key_node.start_mark.line) + 1
            if key in found:
                first = self.into.lines[*at, key]
                self._wrong(key_node, f"`{key}` is given twice, first in line {first}")
            self.into.lines[*at, key] = line
            found[key] = self._value(value_node, (*at, key))
        return found

    def _wrong(self, node: Any, message: str) -> None:  # noqa: ANN401
        self.into.problems.append(Problem(self.shown, int(node.start_mark.line) + 1, message))
