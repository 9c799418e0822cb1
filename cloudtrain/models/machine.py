"""Machines, and the way to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

MachineState = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]
Market = Literal["on-demand", "spot"]


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Everything needed to reach a machine and to know that it is the right one.

    The host key is pinned in `known_hosts` under `alias`, not under the address:
    an address changes with every stop and start, the machine does not.
    """

    address: str
    port: int
    user: str
    key: Path | None
    known_hosts: Path
    alias: str
    proxy_jump: str | None = None
    """Hosts to go through, as OpenSSH's ProxyJump spells them."""
    proxy_command: str | None = None
    """A command whose input and output lead there, with OpenSSH's `%h`, `%p` and `%r` in it."""
    password: bool = False
    """Log in with a password, which is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to get in to a machine that was there before us.

    Without a `key` it is the user's agent and usual keys, or with `password` a password.
    """

    port: int
    user: str
    key: str | None = None
    password: bool = False
    proxy_jump: str | None = None
    proxy_command: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as the provider sees it now. `address` is None until it has one."""

    id: str
    state: MachineState
    type: str
    zone: str
    market: Market
    address: str | None
    launched: datetime
    price_hour: float | None = None
    login: Login | None = None
    """Set for a machine of the user's own; a launched one admits the run's key."""

    @property
    def alive(self) -> bool:
        """Whether it exists at all: stopped machines do, and their disks are billed."""
        return self.state not in ("shutting-down", "terminated")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver or the PCI bus reports it.

    `memory_mib`, `driver` and `compute` are None when no driver answers.
    `compute` is the compute capability, e.g. (7, 5) for a T4.
    """

    name: str
    memory_mib: int | None = None
    driver: str | None = None
    compute: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one round trip says about a machine. Absent things are None or empty."""

    os_id: str
    os_version: str
    kernel: str
    arch: str
    cpus: int
    memory_mib: int
    shm_mib: int
    disk_free_mib: int
    user: str
    home: str
    root: bool
    sudo: bool
    apt: bool
    systemd: bool
    cloud_init: bool
    container: bool
    wsl: bool
    screen: str | None
    rsync: str | None
    git: str | None
    curl: str | None
    python3: str | None
    python3_version: str | None
    uv: str | None
    conda: str | None
    docker: str | None
    nvidia_smi_error: str | None
    baked: str | None = None
    """The environment that the machine's image brought."""
    gpus: tuple[Gpu, ...] = ()

    @property
    def privileged(self) -> bool:
        """Whether steps that need root can run."""
        return self.root or self.sudo
