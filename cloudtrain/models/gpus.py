"""What `train.gpus` means, whatever the machine has."""

from __future__ import annotations

import json


def numbered(asked: str | None) -> tuple[int, ...] | None:
    """Return the numbers of the GPUs that are asked for, by how many or by a list; None for all."""
    if asked in (None, "all"):
        return None
    return tuple(json.loads(asked)) if asked.startswith("[") else tuple(range(int(asked)))
