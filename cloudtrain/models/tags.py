"""The tags that make a resource ours: the truth about what exists.

Keys hold neither `/` nor spaces, so that a machine can read them through the
metadata service.
"""

from __future__ import annotations

from cloudtrain.models.run import RunRef

RUN = "cloudtrain-run"
ID = "cloudtrain-id"
OWNER = "cloudtrain-owner"
DEADLINE = "cloudtrain-deadline"
HOST_KEY = "cloudtrain-hostkey"
"""The public half of the machine's host key, `kind base64`: how a second laptop knows the machine."""

RECIPE = "cloudtrain-recipe"
"""On an image and its snapshots: the digest of what it was made to hold."""
USER = "cloudtrain-user"
"""The login name of the machine's image."""
PRICE = "cloudtrain-price"
"""An hour's price with volume and address, its currency, and the volume's GB: `0.533 USD 28`."""


def run_tags(run: RunRef) -> dict[str, str]:
    """Return the tags that everything of a run carries from its creation on."""
    return {"Name": f"cloudtrain-{run.slug}", RUN: run.name, ID: run.id, OWNER: run.owner}


def price_tag(price_hour: float | None, currency: str, volume_gb: int) -> str:
    """Return the value of the tag `PRICE`; an unknown price is `?`."""
    return f"{'?' if price_hour is None else round(price_hour, 5)} {currency} {volume_gb}"


def read_price(value: str) -> tuple[float | None, str, int]:
    """Read the tag `PRICE`; anything else than what `price_tag` writes is an unknown price."""
    words = value.split()
    if len(words) != 3 or not words[2].isdigit():
        return None, "USD", 0
    try:
        price = float(words[0])
    except ValueError:
        price = None
    return price, words[1], int(words[2])
