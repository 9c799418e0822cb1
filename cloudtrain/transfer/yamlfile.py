"""YAML that somebody else wrote: its values, its lines, and what is wrong with it in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast


class NoYaml(Exception):
    """What keeps a text from being read as YAML. `line` is 1-based, 0 when unknown."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line


def parsed(text: str | bytes) -> object:
    """Return what a YAML document holds. Raises `NoYaml`, whatever is wrong with it."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
            try:
                return cast("Any", super()).construct_object(node, deep)
            # What looks like a date or a number and is none: each kind raises what it likes.
            except (ValueError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
                what = f"`{node.value}`" if isinstance(node, yaml.ScalarNode) else "this"
                kind = node.tag.rpartition(":")[2]
                raise NoYaml(f"{what} is no {kind}", node.start_mark.line + 1) from error

    try:
        return yaml.load(text, Loader)  # noqa: S506 - it is a safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        raise NoYaml(what, mark.line + 1 if mark else 0) from error
    except RecursionError as error:
        raise NoYaml("it is nested too deeply") from error


def key_lines(text: str) -> dict[str, int]:
    """Return the 1-based line of every top-level key and of `a.b` below it; {} if it is no YAML."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return {}
    return dict(_keys(node, ""))


def _keys(node: object, above: str) -> Iterator[tuple[str, int]]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        name = f"{above}{key.value}"
        yield name, key.start_mark.line + 1
        if not above:
            yield from _keys(value, f"{name}.")
