"""GPU instance types with a dated price, for when the cloud's own answer is denied.

Sources: EC2's DescribeInstanceTypes for the sizes; AWS's Linux on-demand price list
of us-east-1 for the prices, on the day that `priced` names. Neither GPU count nor
memory follows from a type's name, so they are data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One type. `gpu_memory_mib` is of all GPUs together; `priced` is a date."""

    type: str
    vcpus: int
    memory_mib: int
    gpu_name: str
    gpu_count: int
    gpu_memory_mib: int
    price_hour: float
    priced: str


def packaged(types: tuple[str, ...] | None = None) -> tuple[CatalogEntry, ...]:
    """Return the entries of `types`, or all; a type that is not known has none."""
    return tuple(entry for entry in _entries() if types is None or entry.type in types)


REGION = "us-east-1"
"""Where the packaged prices hold; elsewhere they are a first idea."""


@cache
def _entries() -> tuple[CatalogEntry, ...]:
    table = json.loads((Path(__file__).parent / "gpu_types.json").read_text())
    return tuple(CatalogEntry(**row, priced=table["priced"]) for row in table["types"])
