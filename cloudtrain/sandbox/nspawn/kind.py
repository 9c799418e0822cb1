"""The kind `nspawn`: what all machines of one sandbox share."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from cloudtrain.errors import UsageError
from cloudtrain.sandbox.images import parents_of
from cloudtrain.sandbox.machines import World
from cloudtrain.sandbox.nspawn import images, surroundings
from cloudtrain.sandbox.nspawn.machine import SSH_PORT, NspawnMachine
from cloudtrain.sandbox.nspawn.metadata import MetadataServer
from cloudtrain.sandbox.nspawn.network import Network, lower_network, raise_network
from cloudtrain.sandbox.nspawn.surroundings import Surroundings
from cloudtrain.sandbox.seed import Seed
from cloudtrain.sandbox.state import State

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
}
FIRST_UID = 1000
"""Whom cloud-init's first user becomes, in the machines."""


@dataclass(slots=True)
class NspawnKind:
    """Makes machines below one state folder. They can be made once it has joined a world."""

    state: State
    base: Path
    world: World | None = field(default=None, repr=False)
    _network: Network | None = field(default=None, repr=False)
    _surroundings: Surroundings | None = field(default=None, repr=False)
    _machines: dict[str, NspawnMachine] = field(default_factory=dict[str, NspawnMachine], repr=False)
    _metadata: MetadataServer | None = field(default=None, repr=False)

    @property
    def ssh_port(self) -> int:
        """The usual one: every machine has a network of its own."""
        return SSH_PORT

    @property
    def login_user(self) -> str:
        """The user that cloud-init makes, who may do everything by sudo."""
        return images.LOGIN_USER

    @property
    def disks(self) -> Path:
        """One folder a machine, its disk."""
        return self.state.root / "disks"

    @property
    def uv_cache(self) -> Path:
        """The package cache that all machines share."""
        return self.state.root / "uv-cache"

    @property
    def network(self) -> Network:
        """The bridge."""
        if self._network is None:
            raise OSError("no machine can be made before `join`")
        return self._network

    @property
    def surroundings(self) -> Surroundings:
        """What of the host holds in machines."""
        if self._surroundings is None:
            raise OSError("no machine can be made before `join`")
        return self._surroundings

    def join(self, world: World) -> None:
        """Make what all machines need. Raises `OSError` and `CloudError`."""
        self.world = world
        for folder in (self.disks, self.uv_cache):
            folder.mkdir(mode=0o755, exist_ok=True)
        os.chown(self.uv_cache, FIRST_UID, FIRST_UID)
        self._surroundings = surroundings.furnish(self.disks / "host", self.base)
        self._network = raise_network(self.state.root)
        self._metadata = MetadataServer(self._network.gateway, world, self._owner)
        self._network.redirect(self._metadata.port)

    def create(self, instance_id: str, seed: Seed) -> NspawnMachine:
        """Make a machine's disk."""
        instance = self.world.instance(instance_id) if self.world else None
        machine = NspawnMachine(self, instance_id, image=instance.image if instance else "")
        machine.furnish(seed)
        self._machines[instance_id] = machine
        return machine

    def lower(self, image: str) -> tuple[Path, ...]:
        """Return the folders below the disk of a machine of this image, the uppermost first."""
        made = self.state.images / image
        names = (image, *parents_of(made)) if image and made.is_dir() else ()
        kept = (self.state.images / name / "upper" for name in names)
        return (*kept, self.surroundings.layer, self.base)

    def reap(self) -> list[str]:
        """End and delete the machines of a server that is gone, and the network."""
        left = {entry.name for folder in (self.state.machines, self.disks) for entry in folder.glob("i-*")}
        for instance_id in left:
            machine = NspawnMachine(self, instance_id)
            machine.destroy()
            shutil.rmtree(machine.folder, ignore_errors=True)
        if self._metadata is not None:
            self._metadata.shutdown()
            self._metadata.server_close()
        lower_network(self.state.root)
        shutil.rmtree(self.disks, ignore_errors=True)
        return sorted(left)

    def _owner(self, address: str) -> str | None:
        for name, machine in list(self._machines.items()):
            if machine.address == address:
                return name
        return None


def nspawn_kind(state: State) -> NspawnKind:
    """Return the kind. Raises `UsageError` without root or a program that it needs."""
    if os.geteuid() != 0:
        raise UsageError(
            "machines of kind `nspawn` need root",
            hint="run as root, or leave CLOUDTRAIN_SANDBOX_MACHINES out: machines of kind `process` need none",
        )
    path = f"{os.environ.get('PATH', os.defpath)}:{images.PATH}"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]
    if missing:
        raise UsageError(
            f"machines of kind `nspawn` need {', '.join(missing)}, which is not installed",
            hint=f"`apt-get install {' '.join(missing)}`",
        )
    os.environ["PATH"] = path
    return NspawnKind(state, images.folder())
