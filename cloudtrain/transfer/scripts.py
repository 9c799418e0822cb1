"""The scripts that run on the machine, joined in order, without the lines that are for their readers."""

from __future__ import annotations

import re
from functools import cache

from cloudtrain.paths import shipped


@cache
def script(*names: str) -> str:
    """Return `templates/<name>.sh` of every name, one after the other.

    Comments stay at home: the text goes over the line with every lane. None of the scripts has a
    here-document, in which such a line would be something else.
    """
    folder = shipped("templates")
    whole = "".join((folder / f"{name}.sh").read_text(encoding="utf-8") for name in names)
    return re.sub(r"(?m)^[ \t]*#.*\n", "", whole)
