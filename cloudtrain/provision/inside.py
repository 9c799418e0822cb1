"""Machines without a public address: reached from inside, or through a hop of ~/.ssh/config.

Nothing is set up for it here: networks and hops are the user's own. What OpenSSH would
do for the machine's address is what we do, and it is said before the launch.
"""

from __future__ import annotations

import ipaddress

from cloudtrain.models.address import is_inside
from cloudtrain.ssh.userconfig import Resolved, resolve

HOSTS_LEFT_OUT = 4
"""AWS keeps a subnet's first four addresses for itself."""


def way_to(address: str) -> Resolved | None:
    """Return what ~/.ssh/config says about a private address; None for one that anybody reaches.

    Raises `UsageError` when that file cannot be read.
    """
    return resolve(address) if is_inside(address) else None


def said_of(cidr: str) -> str:
    """Say how a machine in a subnet will be reached, by the subnet's first free address."""
    example = str(ipaddress.IPv4Network(cidr)[HOSTS_LEFT_OUT])
    found = way_to(example)
    hop = (found.proxy_jump or found.proxy_command) if found else None
    if hop:
        return f"the machine has a private address in {cidr}, reached through `{hop}` of ~/.ssh/config"
    return (
        f"the machine has a private address in {cidr}; ~/.ssh/config names no ProxyJump for one like "
        f"{example}, so it is spoken to directly"
    )
