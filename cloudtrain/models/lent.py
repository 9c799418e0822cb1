"""A right to read one thing for a while."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Lent:
    """One object: its place below what was asked for, its size in bytes, and its address.

    The address holds the right to read it and must never be logged. `version` changes with
    the object.
    """

    path: str
    size: int
    address: str = field(repr=False)
    version: str = ""
