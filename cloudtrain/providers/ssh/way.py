"""From a line of `hosts:` to a way in: where it is, whom we log in as, and by what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloudtrain.errors import AuthenticationFailed
from cloudtrain.models.config import Host
from cloudtrain.models.machine import Login, SshTarget
from cloudtrain.ssh.hostkeys import login_methods
from cloudtrain.ssh.password import can_be_asked
from cloudtrain.ssh.remote import connect
from cloudtrain.ssh.userconfig import known_keys, resolve, usable_identity

BY_PASSWORD = ("password", "keyboard-interactive")


@dataclass(frozen=True, slots=True)
class Way:
    """A host, found. `known` are the keys that the user's OpenSSH knows it by."""

    host: Host
    address: str
    login: Login
    known: tuple[str, ...]


def label_of(host: Host) -> str:
    """Return a host as its owner lists it: `me@gpu.example.org:2222`, what is left out left out."""
    user = f"{host.user}@" if host.user else ""
    port = f":{host.port}" if host.port else ""
    return f"{user}{host.address}{port}"


def find_way(host: Host) -> Way:
    """Resolve a host by ~/.ssh/config. Raises `UsageError` when that cannot be read."""
    found = resolve(host.address, user=host.user, port=host.port)
    key = Path(host.key).expanduser() if host.key else None
    if key is None and not host.password:
        key = usable_identity(found)
    login = Login(
        port=found.port,
        user=found.user,
        key=str(key) if key else None,
        password=host.password,
        proxy_jump=found.proxy_jump,
        proxy_command=found.proxy_command,
    )
    return Way(host, found.address, login, known_keys(found))


def by_password(target: SshTarget, key: str) -> bool:
    """Whether only a password gets us in where no password was configured.

    Called once, for a host whose `key` is trusted: it tells which ways it offers, and a
    key or the agent is tried first where it takes them.
    """
    offered = login_methods(target, key)
    passwords = any(method in offered for method in BY_PASSWORD)
    if not passwords or not can_be_asked():
        return False
    if "publickey" not in offered:
        return True
    try:
        connect(target).close()
    except AuthenticationFailed:
        return True
    return False
