"""Addresses that only a private network knows."""

from __future__ import annotations

import ipaddress

RANGES = tuple(
    ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
"""What a VPC may be made of (RFC 1918, RFC 6598)."""


def is_inside(address: str) -> bool:
    """Whether an IPv4 address is one that only a private network knows."""
    return any(ipaddress.IPv4Address(address) in one for one in RANGES)
