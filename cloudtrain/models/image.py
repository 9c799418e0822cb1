"""Images that we made of machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

SNAPSHOT_GB_MONTH = 0.05
"""What a GB of snapshot costs a month (us-east-1, standard tier, AWS's price list, 2026)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BakedImage:
    """One image of the caller's own. `recipe` is the digest of what it was made to hold.

    `price_month` is what its snapshots would cost were they full: a snapshot is billed by
    the blocks that hold something, which nobody tells. `state` is EC2's, or `snapshot` for
    snapshots whose image is gone already: `id` is empty then.
    """

    id: str
    name: str
    recipe: str
    run: str
    state: str
    created: datetime | None
    size_gb: int
    snapshots: tuple[str, ...]
    region: str
    price_month: float
    currency: str = "USD"
