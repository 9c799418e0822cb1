"""Which words of an address are secret."""

from __future__ import annotations

import re
from urllib.parse import urlsplit


def secrets_in(text: str) -> tuple[str, ...]:
    """Return an address's password, or its name where there is none: a token; and that of a conda channel.

    Words may come before the address, as a package's name does. Empty for no address.
    """
    _, _, rest = text.partition("://")
    parts = urlsplit(f"//{rest}")
    word = parts.password or parts.username
    return (*((word,) if word else ()), *re.findall(r"/t/([^/]+)/", parts.path))
