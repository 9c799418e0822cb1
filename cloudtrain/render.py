"""Templates: jinja2 with StrictUndefined, so that a missing value is an error here.

Shell values go through the `sh` filter; a template never quotes by itself.
"""

from __future__ import annotations

import json
import shlex
from functools import cache
from typing import TYPE_CHECKING

from cloudtrain.paths import shipped

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(shipped("templates")),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - shell and YAML, quoted by the filters below
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["sh"] = lambda value: shlex.quote(str(value))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    env.filters["yaml"] = json.dumps  # JSON is YAML, and json quotes everything
    return env


def render(template: str, **values: object) -> str:
    """Render `templates/<template>`; raises `jinja2.UndefinedError` for a missing value."""
    return _environment().get_template(template).render(**values)
