"""Asking a host for its public keys, before it is trusted with anything.

Only the key exchange is made, which every SSH server makes with everybody: no user name
is sent, no key of ours is offered, and the line is closed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from cloudtrain.errors import ConnectError
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.sockets import dial, why

KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")
"""The kinds that are asked for, the preferred first; a server has one key of each or none."""


def host_keys(target: SshTarget, *, timeout: float = 10) -> Iterator[str]:
    """Yield a host's keys, `kind base64`, one connection each, the preferred kind first.

    `timeout` bounds each wait, in seconds. Raises `ConnectError` when nobody answers SSH.
    """
    found = 0
    for kind in KINDS:
        key = _host_key(target, kind, timeout)
        if key is not None:
            found += 1
            yield key
    if not found:
        raise ConnectError(f"{target.address}:{target.port} has no host key of a kind that is known here")


def login_methods(target: SshTarget, key: str, *, timeout: float = 10) -> tuple[str, ...]:
    """Ask the host that answers with `key` how `target.user` may log in, such as `publickey`.

    Raises `ConnectError` when another key answers, or nobody.
    """
    import paramiko

    transport = _transport(target, timeout, _offered(key))
    try:
        if _line(transport.get_remote_server_key()) != key:
            raise ConnectError(f"{target.address} answered with another host key than a moment ago")
        transport.auth_none(target.user)
    except paramiko.BadAuthenticationType as error:
        return tuple(error.allowed_types)
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise ConnectError(f"{target.address}:{target.port} hung up: {error}") from error
    finally:
        transport.close()
    return ("none",)


def _host_key(target: SshTarget, kind: str, timeout: float) -> str | None:
    from paramiko.ssh_exception import IncompatiblePeer

    try:
        transport = _transport(target, timeout, kind)
    except IncompatiblePeer:
        return None
    try:
        return _line(transport.get_remote_server_key())
    finally:
        transport.close()


def _transport(target: SshTarget, timeout: float, kind: str) -> Any:  # noqa: ANN401 - paramiko's
    """Return a transport after the key exchange, for one kind of key."""
    import logging

    import paramiko
    from paramiko.ssh_exception import IncompatiblePeer

    # What paramiko logs we raise; without a handler Python would print it as well.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    sock = dial(target, timeout)
    try:
        sock.settimeout(timeout)
        transport: Any = paramiko.Transport(sock)
        transport.banner_timeout = timeout
        transport.get_security_options().key_types = (kind,)
        transport.start_client(timeout=timeout)
    except IncompatiblePeer:
        sock.close()
        raise
    except (paramiko.SSHException, OSError, EOFError) as error:
        with suppress(OSError):
            sock.close()
        said = why(sock) or error or "it hung up"
        raise ConnectError(f"{target.address}:{target.port} does not answer SSH: {said}") from error
    return transport


def _line(key: Any) -> str:  # noqa: ANN401 - paramiko's
    return f"{key.get_name()} {key.get_base64()}"


def _offered(key: str) -> str:
    """Return the algorithm that a key signs with: `ssh-rsa` names the key, not the signature."""
    kind = key.split(maxsplit=1)[0]
    return "rsa-sha2-512" if kind == "ssh-rsa" else kind
