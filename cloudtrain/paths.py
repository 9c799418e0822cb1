"""Where cloudtrain keeps things on this machine, and nowhere else.

`CLOUDTRAIN_HOME` moves data and cache together, which is how tests and demos
stay out of a user's own folders.
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def data_dir() -> Path:
    """Return the folder of runs and sandbox state; not created here."""
    home = os.environ.get("CLOUDTRAIN_HOME")
    return Path(home) / "data" if home else user_data_path("cloudtrain", appauthor=False)


def cache_dir() -> Path:
    """Return the folder of things that can be made again; not created here."""
    home = os.environ.get("CLOUDTRAIN_HOME")
    return Path(home) / "cache" if home else user_cache_path("cloudtrain", appauthor=False)


def shipped(kind: str) -> Path:
    """Return the folder `templates` or `ami` of the wheel, or of the checkout."""
    package = Path(__file__).parent
    wheel = package / "_shipped" / kind
    return wheel if wheel.is_dir() else package.parent / kind
