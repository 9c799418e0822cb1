"""Loopback addresses for machines: one port for all of a sandbox, an address for each.

Tried by binding, because several sandboxes and users share the loopback network.
"""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a port that nobody listens on, on any address."""
    # Below the ports that the kernel gives to outgoing connections; free on every address.
    while True:
        port = random.randint(20000, 29999)  # noqa: S311 - not a secret
        if _can_bind("", port):
            return port


def free_address(port: int) -> str:
    """Return an address of 127.0.0.0/8, none of its first 65 networks, where the port is free."""
    while True:
        parts = (random.randint(65, 126), random.randint(0, 255), random.randint(1, 254))  # noqa: S311
        address = "127." + ".".join(map(str, parts))
        if _can_bind(address, port):
            return address


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
