"""The scripts that run on the machine, read as they are.

Only a start has values to fill in, and `status` shall not wait for a template engine.
"""

from __future__ import annotations

from cloudtrain.paths import shipped


def script(name: str) -> str:
    """Return `templates/<name>` with the shared functions before it."""
    folder = shipped("templates")
    return (folder / "session-lib.sh").read_text() + (folder / name).read_text()
