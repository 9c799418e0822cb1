"""One verified connection to one machine, and its channels.

`Remote` is what everything above sees of a machine. It opens a Fabric connection
whose host key must be pinned, sets TCP_NODELAY (paramiko leaves Nagle on, which
costs 25 ms a small write), and shares at most `CHANNELS` channels among threads:
OpenSSH refuses more than 10 sessions a connection by default (MaxSessions).
"""

from __future__ import annotations

import base64
import shlex
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cloudtrain.errors import (
    AuthenticationFailed,
    ConnectError,
    HostKeyMismatch,
    UsageError,
)
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.keys import fingerprint, pinned

if TYPE_CHECKING:
    import fabric
    import paramiko

CHANNELS = 8
CHUNK = 1 << 18
"""Bytes per write: `sendall` of one huge buffer is quadratic in paramiko."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command on the machine answered."""

    command: str
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.code == 0

    @property
    def tail(self) -> str:
        """The last ten lines of everything it said."""
        lines = (self.stdout + self.stderr).strip().splitlines()
        return "\n".join(lines[-10:])


class CommandFailed(ConnectError):
    """A command of our own on the machine exited with another code than 0."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"a command on the machine exited with {result.code}:\n{result.tail}")
        self.result = result


class Channel:
    """One running command: write its input, read its output, take its exit code."""

    def __init__(self, raw: paramiko.Channel) -> None:
        self._raw = raw

    def write(self, data: bytes) -> None:
        """Send all of `data` to the command's input. Raises `ConnectError` when it is gone."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), CHUNK):
                self._raw.sendall(bytes(view[start : start + CHUNK]))
        except (OSError, EOFError) as error:
            raise ConnectError("the connection closed while sending") from error

    def close_input(self) -> None:
        """Say that no more input comes."""
        self._raw.shutdown_write()

    def read(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes of output, b"" at its end. Raises `ConnectError` on a stall."""
        try:
            return self._raw.recv(size)
        except TimeoutError as error:
            raise ConnectError("the machine stopped answering in the middle of a command") from error

    def read_error(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes of error output, b"" at its end."""
        try:
            return self._raw.recv_stderr(size)
        except TimeoutError as error:
            raise ConnectError("the machine stopped answering in the middle of a command") from error

    def exit_code(self) -> int:
        """Wait for the command's end. Raises `ConnectError` if the line went first."""
        code = self._raw.recv_exit_status()
        if code == -1:
            raise ConnectError("the connection closed before the command ended")
        return code

    def settimeout(self, seconds: float | None) -> None:
        """Bound every single read and write; None waits for ever."""
        self._raw.settimeout(seconds)


class Remote:
    """A machine we are connected to. Make one with `connect` or `connect_when_ready`."""

    def __init__(self, target: SshTarget, connection: fabric.Connection) -> None:
        self.target = target
        self.connection = connection
        self._budget = threading.BoundedSemaphore(CHANNELS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; closed already is fine."""
        self.connection.close()

    @property
    def transport(self) -> paramiko.Transport:
        """The open transport. Raises `ConnectError` when the line is gone."""
        transport: Any = self.connection.transport
        if transport is None or not transport.is_active():
            raise ConnectError(
                f"the connection to {self.target.address} is gone",
                hint="run the same command again; it continues where it stopped",
            )
        return transport

    @contextmanager
    def open(self, command: str, *, timeout: float | None = None) -> Generator[Channel]:
        """Start `command` in the login shell and yield its channel; closed at the end."""
        import paramiko

        with self._budget:
            try:
                raw = self.transport.open_session(timeout=30)
            except (paramiko.SSHException, EOFError, OSError) as error:
                raise ConnectError(f"cannot open a channel to {self.target.address}: {error}") from error
            try:
                raw.settimeout(timeout)
                raw.exec_command(command)
                yield Channel(raw)
            except (paramiko.SSHException, EOFError) as error:
                raise ConnectError(f"the connection to {self.target.address} broke: {error}") from error
            finally:
                with suppress(paramiko.SSHException, EOFError, OSError):
                    raw.close()  # on a line that broke it tries to say goodbye

    def run(
        self,
        command: str,
        *,
        stdin: bytes = b"",
        timeout: float | None = 60,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run `command` in the login shell and return what it answered.

        `timeout` bounds the silence between two pieces of output, in seconds.
        `on_line` sees every line of standard output as it comes. Raises
        `CommandFailed` for another exit code than 0 unless `check` is False, and
        `ConnectError` when the line breaks.
        """
        with self.open(command, timeout=timeout) as channel:
            errors: list[bytes] = []
            side = threading.Thread(target=_drain, args=(channel.read_error, errors), daemon=True)
            feed = threading.Thread(target=_feed, args=(channel, stdin), daemon=True)
            side.start()
            feed.start()
            out = _collect(channel, on_line)
            code = channel.exit_code()
            side.join(5)
        stderr = b"".join(errors).decode("utf-8", "replace")
        result = Result(command, code, out, stderr)
        if check and not result.ok:
            raise CommandFailed(result)
        return result

    def script(
        self,
        text: str,
        *args: str,
        timeout: float | None = 60,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run a bash script sent on standard input, so its text is in no process list."""
        command = shlex.join(["bash", "-s", "--", *args])
        return self.run(command, stdin=text.encode(), timeout=timeout, check=check, on_line=on_line)

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        """Write a small file whole or not at all, its folder made if need be."""
        part = shlex.quote(f"{path}.part")
        folder = shlex.quote(path.rsplit("/", 1)[0] or "/")
        self.run(
            f"mkdir -p {folder} && (umask 077; cat > {part}) && chmod {mode:o} {part} "
            f"&& mv -f {part} {shlex.quote(path)}",
            stdin=data,
        )

    def read(self, path: str) -> bytes | None:
        """Return a small file's bytes, or None when it is not there."""
        quoted = shlex.quote(path)
        with self.open(f"test -e {quoted} || exit 66; cat {quoted}", timeout=60) as channel:
            parts: list[bytes] = []
            _drain(channel.read, parts)
            code = channel.exit_code()
        if code == 66:
            return None
        if code != 0:
            raise ConnectError(f"cannot read `{path}` on the machine (exit {code})")
        return b"".join(parts)


def _feed(channel: Channel, data: bytes) -> None:
    try:
        channel.write(data)
        channel.close_input()
    except (ConnectError, OSError, EOFError):
        return  # the command may end without reading; its exit code tells


def _drain(read: Callable[[], bytes], into: list[bytes]) -> None:
    while chunk := read():
        into.append(chunk)


def _collect(channel: Channel, on_line: Callable[[str], None] | None) -> str:
    chunks: list[bytes] = []
    rest = b""
    while chunk := channel.read():
        chunks.append(chunk)
        if on_line is not None:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                on_line(line.decode("utf-8", "replace").rstrip("\r"))
    if on_line is not None and rest:
        on_line(rest.decode("utf-8", "replace"))
    return b"".join(chunks).decode("utf-8", "replace")


def connect(target: SshTarget, *, timeout: float = 15) -> Remote:
    """Connect once, verified.

    Raises `HostKeyMismatch` before any authentication, `AuthenticationFailed`, or
    `ConnectError` when nobody answers.
    """
    connection = _verified_connection(target, timeout)
    _open(connection, target)
    remote = Remote(target, connection)
    sock: Any = remote.transport.sock
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    remote.transport.set_keepalive(15)
    return remote


def connect_when_ready(
    target: SshTarget,
    *,
    deadline_s: float = 300,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Remote:
    """Connect as soon as the machine answers; only "not there yet" is tried again."""
    end = clock() + deadline_s
    pause = 0.05
    while True:
        try:
            return connect(target)
        except (HostKeyMismatch, AuthenticationFailed):
            raise
        except ConnectError as error:
            if clock() + pause > end:
                raise ConnectError(
                    f"{target.address} did not answer SSH within {deadline_s:.0f} s: {error.message}",
                    hint="the machine still runs: try again, or end it with `cloudtrain down`",
                ) from error
            sleep(pause)
            pause = min(pause * 1.5, 2.0)


def _verified_connection(target: SshTarget, timeout: float) -> fabric.Connection:
    import fabric
    import paramiko

    keys = pinned(target.known_hosts, target.alias)
    if not keys:
        raise HostKeyMismatch(
            f"no host key is pinned for `{target.alias}`: nothing was sent to {target.address}",
        )
    kwargs: dict[str, Any] = {"allow_agent": target.key is None, "look_for_keys": False}
    if target.key is not None:
        kwargs["pkey"] = _private_key(target)
    connection = fabric.Connection(
        target.address,
        user=target.user,
        port=target.port,
        connect_timeout=int(timeout),
        connect_kwargs={**kwargs, "banner_timeout": timeout, "auth_timeout": 30},
        config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
        gateway=_jump(target),
    )
    client: Any = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    known = client.get_host_keys()
    known.clear()
    name = target.address if target.port == 22 else f"[{target.address}]:{target.port}"
    for line in keys:
        kind, blob = line.split()
        known.add(name, kind, paramiko.PKey.from_type_string(kind, base64.b64decode(blob)))
    return connection


def _jump(target: SshTarget) -> str | None:
    """Return the command that reaches a machine behind another host.

    OpenSSH makes that hop, by the user's own configuration and known hosts; Fabric's
    own gateway would trust whoever answers.
    """
    if target.proxy_jump is None:
        return None
    return f"ssh -W %h:%p -o StrictHostKeyChecking=yes -o BatchMode=yes {shlex.quote(target.proxy_jump)}"


def _private_key(target: SshTarget) -> paramiko.PKey:
    import paramiko

    path = target.key
    if path is None or not path.exists():
        raise UsageError(
            f"the private key `{path}` is missing", hint="`cloudtrain audit` finds what it opened"
        )
    if path.stat().st_mode & 0o077:
        raise UsageError(f"the private key `{path}` is readable by others", hint=f"run `chmod 600 {path}`")
    try:
        return paramiko.Ed25519Key.from_private_key_file(str(path))
    except paramiko.SSHException:
        pass
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.SSHException, ValueError, TypeError, OSError) as error:
        raise UsageError(f"the private key `{path}` cannot be read: {error}") from error


def _open(connection: fabric.Connection, target: SshTarget) -> None:
    import paramiko

    try:
        connection.open()
    except paramiko.BadHostKeyException as error:
        raise HostKeyMismatch(
            f"{target.address} answered with another host key than the pinned one: "
            f"{fingerprint(f'{error.key.get_name()} {error.key.get_base64()}')}; nothing was sent to it",
            hint="somebody may be in between; if you replaced the machine yourself, `cloudtrain down` and `up`",
        ) from error
    except paramiko.AuthenticationException as error:
        raise AuthenticationFailed(f"{target.user}@{target.address} refused our key") from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        if "not found in known_hosts" in str(error):
            raise HostKeyMismatch(
                f"{target.address} answered with a kind of host key that is not pinned; nothing was sent to it",
            ) from error
        raise ConnectError(f"{target.address}:{target.port} does not answer SSH: {error}") from error
