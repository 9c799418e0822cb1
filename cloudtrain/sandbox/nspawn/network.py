"""One bridge a sandbox, with an address for each machine and a way out for all.

The subnet is one of 198.18.0.0/15, which RFC 2544 sets aside for tests: no real
network can be hidden by it. `ip_forward` is turned on and stays on, because others may
rely on it by the time we end.
"""

from __future__ import annotations

import hashlib
import ipaddress
import shlex
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

METADATA = "169.254.169.254"
_SUBNETS = tuple(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=24))


class NetworkError(OSError):
    """The host's network could not be changed."""


@dataclass(slots=True)
class Network:
    """The bridge of one state folder. `metadata_port` is where the metadata service listens."""

    name: str
    subnet: ipaddress.IPv4Network
    _next: int = 10
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def gateway(self) -> str:
        """The host's own address on it."""
        return str(self.subnet[1])

    def address(self) -> str:
        """Return an address that no machine has had lately."""
        with self._lock:
            self._next = self._next + 1 if self._next < 250 else 11
            return str(self.subnet[self._next])

    def redirect(self, port: int) -> None:
        """Lead the metadata service's usual address to `port` of the gateway."""
        to = f"{self.gateway}:{port}"
        _rule(
            self.name,
            "nat",
            f"-I PREROUTING -i {self.name} -d {METADATA} -p tcp --dport 80 -j DNAT --to {to}",
        )
        _rule(self.name, "filter", f"-I INPUT -i {self.name} -p tcp --dport {port} -j ACCEPT")


def bridge_name(state: Path) -> str:
    """Return the bridge's name; an interface's has 15 characters at most."""
    return f"ct-{hashlib.sha256(str(state).encode()).hexdigest()[:10]}"


def raise_network(state: Path) -> Network:
    """Make the bridge and the way out. Raises `NetworkError`."""
    name = bridge_name(state)
    lower_network(state)
    network = Network(name, _free_subnet(name))
    _run(f"ip link add {name} type bridge")
    _run(f"ip addr add {network.gateway}/24 dev {name}")
    _run(f"ip link set {name} up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    _rule(name, "nat", f"-A POSTROUTING -s {network.subnet} ! -o {name} -j MASQUERADE")
    # First in the chain: a Docker engine on the host lets through nothing it does not know.
    _rule(name, "filter", f"-I FORWARD -i {name} -j ACCEPT")
    _rule(name, "filter", f"-I FORWARD -o {name} -j ACCEPT")
    return network


def lower_network(state: Path) -> None:
    """Take the bridge and every rule of it away; none is success."""
    name = bridge_name(state)
    for table in ("nat", "filter"):
        saved = subprocess.run(["iptables-save", "-t", table], capture_output=True, text=True, check=False)
        for line in saved.stdout.splitlines():
            if line.startswith("-A ") and name in line.split():
                _run(f"iptables -w -t {table} -D {line.removeprefix('-A ')}")
    if Path("/sys/class/net", name).exists():
        _run(f"ip link del {name}")


def _free_subnet(name: str) -> ipaddress.IPv4Network:
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=False).stdout
    start = int(name[-4:], 16)
    for step in range(len(_SUBNETS)):
        subnet = _SUBNETS[(start + step) % len(_SUBNETS)]
        if f"{subnet} " not in routes:
            return subnet
    raise NetworkError("every subnet of 198.18.0.0/15 is taken")


def _rule(name: str, table: str, rule: str) -> None:
    _run(f"iptables -w -t {table} {rule} -m comment --comment {name}")


def _run(command: str) -> None:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NetworkError(f"`{command}`: {done.stderr.strip()}")
