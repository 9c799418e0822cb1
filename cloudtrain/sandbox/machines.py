"""The machines behind the instances. `Kind` is the seam: other kinds answer to it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cloudtrain.sandbox.seed import Seed


class Machine(Protocol):
    """One machine, from its first boot to the end of its disk."""

    def boot(self) -> str:
        """Start it and return its address, where SSH answers already. Raises `OSError`."""
        ...

    def halt(self) -> None:
        """End every process of it; the disk stays."""
        ...

    def destroy(self) -> None:
        """End every process of it and delete its disk; its log stays."""
        ...

    def console(self) -> str:
        """Return what it wrote to its console so far."""
        ...


class Kind(Protocol):
    """A way to make machines."""

    @property
    def ssh_port(self) -> int:
        """The port on which every machine answers, each on its own address."""
        ...

    @property
    def login_user(self) -> str:
        """The user to log in as."""
        ...

    def create(self, instance_id: str, seed: Seed) -> Machine:
        """Make a machine's disk from its seed; it does not run yet."""
        ...

    def reap(self) -> Sequence[str]:
        """End and delete what an earlier server left, and return the ids."""
        ...
