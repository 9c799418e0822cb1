"""What `make test` leaves to `make test-all`: more of the same, where a few show whether it works."""

from __future__ import annotations

import os
from typing import Any

import pytest

THOROUGH = bool(os.environ.get("THOROUGH"))


def also(*values: Any) -> Any:
    """Return a test's parameters that only a thorough run tries."""
    return pytest.param(*values, marks=pytest.mark.skipif(not THOROUGH, reason="make test-all"))
