"""From a line of `hosts:` to a way in: where it is, whom we log in as, and by what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cloudtrain.errors import AuthenticationFailed
from cloudtrain.models.config import Host
from cloudtrain.models.machine import Login, SshTarget
from cloudtrain.ssh.hostkeys import login_methods
from cloudtrain.ssh.password import can_be_asked
from cloudtrain.ssh.remote import connect
from cloudtrain.ssh.userconfig import Resolved, known_keys, resolve, usable_identities

BY_PASSWORD = ("password", "keyboard-interactive")


@dataclass(frozen=True, slots=True)
class Way:
    """A host, found. `known` are the keys that the user's OpenSSH knows it by.

    `others` are further key files to try where the login's does not fit, None for the agent's and
    the usual keys.
    """

    host: Host
    address: str
    login: Login
    known: tuple[str, ...]
    others: tuple[str | None, ...] = ()


def label_of(host: Host) -> str:
    """Return a host as its owner lists it: `me@gpu.example.org:2222`, what is left out left out."""
    user = f"{host.user}@" if host.user else ""
    port = f":{host.port}" if host.port else ""
    return f"{user}{host.address}{port}"


def find_way(host: Host) -> Way:
    """Resolve a host by ~/.ssh/config. Raises `UsageError` when that cannot be read."""
    found = resolve(host.address, user=host.user, port=host.port)
    first, *others = _keys(host, found)
    login = Login(
        port=found.port,
        user=found.user,
        key=first,
        password=host.password,
        proxy_jump=found.proxy_jump,
        proxy_command=found.proxy_command,
    )
    return Way(host, found.address, login, known_keys(found), tuple(others))


def _keys(host: Host, found: Resolved) -> tuple[str | None, ...]:
    """Return what to try, in this order; None is the agent's and the usual keys.

    A file that merely lies there is not chosen: the key that fits may be another one.
    """
    if host.key:
        return (str(Path(host.key).expanduser()),)
    named = () if host.password else tuple(str(path) for path in usable_identities(found))
    return named if named and found.only_these else (*named, None)


def fitting(way: Way, target: SshTarget, key: str, *, ask: bool = True) -> Login:
    """Return the login by which the host lets us in; the first one where none is seen to.

    Called once, for a host whose `key` is trusted: it tells which ways it offers. A password that
    nobody configured comes last, where somebody may be asked for it (`ask`).
    """
    if way.login.password or not (way.others or ask):
        return way.login
    offered = login_methods(target, key)
    by_password = ask and can_be_asked() and any(method in offered for method in BY_PASSWORD)
    logins = [way.login, *(replace(way.login, key=other) for other in way.others)]
    if len(logins) > 1 or by_password:
        for login in logins if "publickey" in offered else ():
            if _lets_in(replace(target, key=Path(login.key) if login.key else None)):
                return login
    return replace(way.login, key=None, password=True) if by_password else way.login


def _lets_in(target: SshTarget) -> bool:
    try:
        connect(target).close()
    except AuthenticationFailed:
        return False
    return True
