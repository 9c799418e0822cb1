"""End this user's sandbox and check that nothing of it is left: no server, no machine, no screen session.

Looks for what its machines left in the environment of everything they ever started. Exits with 1 and names what it found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from cloudtrain.paths import data_dir
from cloudtrain.providers import sandbox

INHERITED = "CLOUDTRAIN_MACHINE"
"""Set for everything that a machine ever started; its value is the machine's id."""


def main() -> int:
    """Print what is left; return the exit code."""
    state = data_dir() / "sandbox"
    machines = {folder.name for folder in state.glob("machines/*")}  # the end clears them away
    sandbox.stop(state)
    found = sorted(left(state, machines))
    for pid, command in found:
        print(f"still running: {pid} {command}", file=sys.stderr)
    if not found:
        print("nothing is left: no sandbox, no machine, no screen session")
    return 1 if found else 0


def left(state: Path, machines: set[str], proc: Path = Path("/proc")) -> Iterator[tuple[int, str]]:
    """Yield number and command line of every process of a sandbox and of its machines."""
    known = {f"{INHERITED}={name}".encode() for name in machines}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            variables = set((entry / "environ").read_bytes().split(b"\0"))
        except OSError:  # it ended meanwhile, or it is another user's
            continue
        serves = b"cloudtrain.sandbox" in words and str(state).encode() in words
        if serves or variables & known:
            yield int(entry.name), b" ".join(words).decode(errors="replace").strip()


if __name__ == "__main__":
    sys.exit(main())
