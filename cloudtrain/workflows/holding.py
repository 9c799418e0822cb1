"""Telling the machine's guard what it cannot see: that we fetch, that we work, that all is at home.

The guard reads files in the run's folder; cloudtrain/guard/guard.py lists them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Literal

from cloudtrain.errors import CloudtrainError
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote

TOUCH_S = 60.0
"""How often a file is touched; the guard believes one for two and a half minutes."""


@contextmanager
def holding(
    remote: Remote, layout: Layout, what: Literal["fetching", "working"], *, every_s: float = TOUCH_S
) -> Generator[None]:
    """Let the guard know that the machine is used, for as long as the block lasts.

    `fetching` holds a rescue window open, `working` keeps it from being idle. A line that
    breaks ends the block by itself; telling the guard never does.
    """
    path = f"{layout.root}/{what}"
    over = threading.Event()

    def touch() -> None:
        while True:
            with suppress(CloudtrainError, OSError):
                remote.run(f"test ! -d '{layout.root}' || touch '{path}'", check=False, timeout=30)
            if over.wait(every_s):
                return

    telling = threading.Thread(target=touch, daemon=True, name=what)
    telling.start()
    try:
        yield
    finally:
        over.set()
        telling.join(5)
        with suppress(CloudtrainError, OSError):
            remote.run(f"rm -f '{path}'", check=False, timeout=10)


@contextmanager
def proving(remote: Remote, layout: Layout) -> Generator[Callable[[], object]]:
    """Yield what notes that every checkpoint older than the block's begin is proven at home."""
    mark = f"{layout.root}/fetched"
    remote.run(f"test ! -d '{layout.root}' || touch '{mark}.part'", check=False)
    yield lambda: remote.run(f"mv -f '{mark}.part' '{mark}' 2>/dev/null", check=False)
