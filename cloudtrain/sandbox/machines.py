"""The machines behind the instances. `Kind` is the seam: other kinds answer to it too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cloudtrain.sandbox.metadata import Instance, Tokens
from cloudtrain.sandbox.seed import Seed


class World(Protocol):
    """The cloud around the machines, as far as a kind has to know it."""

    @property
    def tokens(self) -> Tokens:
        """The tokens of the metadata service, for `metadata.answer`."""
        ...

    def instance(self, instance_id: str) -> Instance | None:
        """Return what the metadata service of this machine may say; live, so ask anew each time."""
        ...

    def powered_off(self, instance_id: str) -> None:
        """Take note that a machine powered itself off; not to be said of `halt` or `destroy`."""
        ...


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

    def keep(self, folder: Path, *, reboot: bool) -> None:
        """Copy its disk to `folder/upper`, where it has one; `reboot` shuts it down meanwhile.

        Raises `OSError`.
        """
        ...

    def push_key(self, user: str, public: str, *, for_s: float) -> None:
        """Let the holder of a key in for a while. Raises `LookupError` for a user that is not there."""
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

    def join(self, world: World) -> None:
        """Learn the cloud around; called once, before the first machine."""
        ...

    def create(self, instance_id: str, seed: Seed) -> Machine:
        """Make a machine's disk from its seed; it does not run yet."""
        ...

    def reap(self) -> Sequence[str]:
        """End and delete what an earlier server left, and return the ids."""
        ...
