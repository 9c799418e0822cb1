"""Opening a connection to a machine whose key is pinned, and to no other.

Fabric's own way trusts whoever answers, and paramiko's list of known hosts holds one
key a type. Here the pinned keys decide, before any authentication; no configuration
of the user's is read, for a `Host *` block in it could weaken this.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloudtrain.errors import AuthenticationFailed, ConnectError, HostKeyMismatch, UsageError
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.keys import fingerprint, pinned
from cloudtrain.ssh.password import password_of
from cloudtrain.ssh.sockets import dial, why

if TYPE_CHECKING:
    import fabric
    import paramiko

_UNHEARD = logging.NullHandler()
REKEY_BYTES = 1 << 35
"""After how much new keys are agreed on: half of what OpenSSH and RFC 4344, 3.2, allow a cipher of
128-bit blocks. paramiko's own 512 MB come in the middle of a push, and its reader can wait for
itself then: a channel's end that comes meanwhile is answered only when the keys are agreed on.
"""


def open_verified(target: SshTarget, *, reach_s: float, answer_s: float) -> fabric.Connection:
    """Connect once: `reach_s` seconds for TCP, `answer_s` for the machine's first words.

    Raises `HostKeyMismatch` before any authentication, `AuthenticationFailed`,
    `UsageError` for a key file that cannot be used, `ConnectError` for the rest.
    """
    connection: Any = _verified_connection(target, answer_s)
    sock = dial(target, reach_s)
    connection.connect_kwargs["sock"] = sock
    _open(connection, target, sock)
    connection.transport.set_keepalive(15)
    return connection


def _verified_connection(target: SshTarget, timeout: float) -> fabric.Connection:
    import fabric

    # What paramiko logs we raise; without a handler Python would print it as well.
    logging.getLogger("paramiko").addHandler(_UNHEARD)

    keys = pinned(target.known_hosts, target.alias)
    if not keys:
        raise HostKeyMismatch(
            f"no host key is pinned for `{target.alias}`: nothing was sent to {target.address}",
            hint="use the computer that started this run, or end it with `cloudtrain down`",
        )
    # Without a key of our own it is the user's machine, reached as `ssh` would reach it.
    usual = target.key is None and not target.password
    kwargs: dict[str, Any] = {"allow_agent": usual, "look_for_keys": usual}
    if target.password:
        kwargs["password"] = password_of(target)
    elif target.key is not None:
        kwargs["pkey"] = _private_key(target.key)
    kwargs |= {"timeout": timeout, "banner_timeout": timeout, "auth_timeout": 30}
    connection = fabric.Connection(
        target.address,
        user=target.user,
        port=target.port,
        connect_kwargs={**kwargs, "transport_factory": _transport_for(keys)},
        config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
        gateway=False,  # pyright: ignore[reportArgumentType] - Fabric's word for none at all
    )
    client: Any = connection.client
    client.get_host_keys().clear()
    client.set_missing_host_key_policy(_OnlyPinned(target, keys))
    return connection


class _OnlyPinned:
    """Refuses every host key but the pinned ones, before authentication.

    paramiko's own list holds one key a type, which would lose one of two while a
    machine changes its key; so its list stays empty, and everything is asked here.
    """

    def __init__(self, target: SshTarget, keys: tuple[str, ...]) -> None:
        self._target = target
        self._keys = keys

    def missing_host_key(self, _client: object, _hostname: str, key: paramiko.PKey) -> None:
        """Return for a pinned key; raise `HostKeyMismatch` for any other."""
        line = f"{key.get_name()} {key.get_base64()}"
        if line not in self._keys:
            raise HostKeyMismatch(
                f"{self._target.address} answered with another host key than the pinned one: "
                f"{fingerprint(line)}; nothing was sent to it",
                hint="somebody may be in between; if you replaced the machine yourself, `cloudtrain down` and `up`",
            )


def _transport_for(keys: tuple[str, ...]) -> Callable[..., paramiko.Transport]:
    """Return a maker of transports that ask for the pinned kinds of key first."""

    def make(sock: socket.socket, **kwargs: Any) -> paramiko.Transport:  # noqa: ANN401
        import paramiko

        transport: Any = paramiko.Transport(sock, **kwargs)
        transport.packetizer.REKEY_BYTES = REKEY_BYTES
        options: Any = transport.get_security_options()
        # `rsa-sha2-512` signs with the key that known_hosts calls `ssh-rsa`.
        kinds = {"rsa-sha2-512" if line.startswith("ssh-rsa ") else line.split()[0] for line in keys}
        options.key_types = sorted(options.key_types, key=lambda kind: kind not in kinds)
        return transport

    return make


def _private_key(path: Path) -> paramiko.PKey:
    import struct

    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        shared = path.stat().st_mode & 0o077
    except OSError as error:
        raise UsageError(
            f"the private key `{path}` is missing", hint="`cloudtrain audit` finds what it opened"
        ) from error
    if shared:
        raise UsageError(f"the private key `{path}` is readable by others", hint=f"run `chmod 600 {path}`")
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError) as error:  # cryptography says it by TypeError
        raise UsageError(
            f"the private key `{path}` has a passphrase",
            hint="name a key without one; or none, and let `ssh-agent` hold it",
        ) from error
    except (
        paramiko.SSHException, UnsupportedAlgorithm, ValueError, LookupError, OSError, struct.error,
    ) as error:  # fmt: skip
        raise UsageError(
            f"`{path}` is not a private key that can be read: {error}", hint=f"see `ssh-keygen -lf {path}`"
        ) from error


def _open(connection: fabric.Connection, target: SshTarget, sock: socket.socket) -> None:
    import paramiko

    try:
        connection.open()
    except BaseException as error:
        # Fabric takes what it never finished opening for closed.
        cast("paramiko.SSHClient", connection.client).close()
        sock.close()
        if _refused(error):
            what = "the password" if target.password else "our key"
            raise AuthenticationFailed(
                f"{target.user}@{target.address} refused {what}",
                hint=f"nothing is tried again: check the user name and {what.replace('our', 'the')}",
            ) from error
        if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
            raise ConnectError(
                f"{target.address}:{target.port} does not answer SSH: {why(sock) or error or 'it hung up'}"
            ) from error
        raise


def _refused(error: BaseException) -> bool:
    """Whether the machine would not let us in; having nothing to offer it is the same."""
    import paramiko

    if isinstance(error, paramiko.AuthenticationException):
        return not _line_lost(error)
    return isinstance(error, paramiko.SSHException) and "No authentication methods" in str(error)


def _line_lost(error: Exception) -> bool:
    """Whether nobody refused anything: paramiko says so only in words."""
    return "transport shut down" in str(error) or "timeout" in str(error)
