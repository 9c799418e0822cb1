"""One verified connection to one machine, and its channels.

`Remote` is what everything above sees of a machine. It opens a Fabric connection
whose host key must be pinned, sets TCP_NODELAY (paramiko leaves Nagle on, which
costs 25 ms a small write), and shares at most `CHANNELS` channels among threads:
OpenSSH refuses more than 10 sessions a connection by default (MaxSessions).
"""

from __future__ import annotations

import logging
import posixpath
import queue
import shlex
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from cloudtrain.errors import (
    AuthenticationFailed,
    ConnectError,
    HostKeyMismatch,
    UsageError,
)
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh import openssh
from cloudtrain.ssh.keys import fingerprint, pinned

if TYPE_CHECKING:
    import fabric
    import paramiko

CHANNELS = 8
CHUNK = 1 << 18
"""Bytes per write: `sendall` of one huge buffer is quadratic in paramiko."""
FEED = 1 << 15
"""Bytes of input that count as a sign of life: small, so that a slow line shows some."""


KILLED = 128
"""Stands for the exit code of a command that a signal ended: it has none of its own."""
_UNHEARD = logging.NullHandler()
_STALLED = "the machine stopped answering in the middle of a command"
_DYING_S = 0.5
_SILENCE_MS = 60_000
"""How long sent bytes may stay unanswered by the machine's kernel before the line counts as cut."""


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
            raise ConnectError(_STALLED) from error

    def read_error(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes of error output, b"" at its end."""
        try:
            return self._raw.recv_stderr(size)
        except TimeoutError as error:
            raise ConnectError(_STALLED) from error

    def exit_code(self) -> int:
        """Wait for the command's end; `KILLED` when a signal ended it.

        Raises `ConnectError` if the line went first, or took longer than the timeout.
        """
        if not self._raw.status_event.wait(self._raw.gettimeout()):
            raise ConnectError(_STALLED)
        code = self._raw.recv_exit_status()
        if code != -1:
            return code
        # A dying transport wakes its channels first and says so last.
        self._raw.get_transport().join(_DYING_S)
        if self._raw.get_transport().is_active():
            return KILLED
        raise ConnectError("the connection closed before the command ended")

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
                raw = self._session()
            except (paramiko.SSHException, EOFError, OSError) as error:
                raise ConnectError(f"cannot open a channel to {self.target.address}: {error}") from error
            try:
                raw.settimeout(timeout)
                raw.exec_command(_encoded(command))
                yield Channel(raw)
            except (paramiko.SSHException, EOFError) as error:
                raise ConnectError(f"the connection to {self.target.address} broke: {error}") from error
            finally:
                with suppress(paramiko.SSHException, EOFError, OSError):
                    raw.close()  # on a line that broke it tries to say goodbye

    def _session(self) -> paramiko.Channel:
        """Open a channel. OpenSSH may count one that ended as open for a moment more."""
        import paramiko

        pause = 0.01
        while True:
            try:
                return self.transport.open_session(timeout=30)
            except paramiko.SSHException as error:
                if not was_refused(error) or pause > 2:
                    raise
                time.sleep(pause)
                pause *= 2

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

        `timeout` bounds the silence, in seconds: nothing came on either output, and no
        input was taken. `on_line` sees every line of standard output as it comes.
        Raises `CommandFailed` for another exit code than 0 unless `check` is False,
        and `ConnectError` when the line breaks.
        """
        talk = _Talk(stdin)
        try:
            with self.open(command) as channel:
                talk.start(channel)
                talk.listen(timeout, on_line)
                channel.settimeout(timeout)
                code = channel.exit_code()
        finally:
            talk.join()
        result = Result(command, code, talk.text(_OUT), talk.text(_ERR))
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
        """Run a bash script sent on standard input, so its text is in no process list.

        Nothing of it runs before all of it is there: bash executes a script as it reads
        it, so a line that is cut would otherwise leave half a command behind.
        """
        command = shlex.join(["bash", "-s", "--", *args])
        whole = _encoded(f"{{ :; {text}\n}}\n")
        return self.run(command, stdin=whole, timeout=timeout, check=check, on_line=on_line)

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        """Write a small file whole or not at all, its folder made if need be."""
        whole = _as_operand(path)
        part = shlex.quote(f"{whole}.part")
        folder = shlex.quote(posixpath.dirname(whole))
        # The count, since `cat` ends well too when the line is cut in the middle.
        self.run(
            f"mkdir -p {folder} && (umask 077; cat > {part}) && test $(wc -c < {part}) -eq {len(data)} "
            f"&& chmod {mode:o} {part} && mv -fT {part} {shlex.quote(whole)}",
            stdin=data,
        )

    def read(self, path: str) -> bytes | None:
        """Return a small file's bytes, or None when it is not there."""
        quoted = shlex.quote(_as_operand(path))
        with self.open(f"test -e {quoted} || exit 66; cat {quoted}", timeout=60) as channel:
            parts: list[bytes] = []
            _drain(channel.read, parts)
            code = channel.exit_code()
        if code == 66:
            return None
        if code != 0:
            raise ConnectError(f"cannot read `{path}` on the machine (exit {code})")
        return b"".join(parts)


def was_refused(error: paramiko.SSHException) -> bool:
    """Whether the machine answered, and would not open a channel: its line is well.

    paramiko keeps one exception for all threads of a transport, so when several are
    refused at once, some are told only that it did not work.
    """
    import paramiko

    return isinstance(error, paramiko.ChannelException) or str(error) == "Unable to open channel."


def _drain(read: Callable[[], bytes], into: list[bytes]) -> None:
    while chunk := read():
        into.append(chunk)


def _encoded(command: str) -> bytes:
    """Names on either side are bytes; what is not UTF-8 in them came as surrogates."""
    return command.encode("utf-8", "surrogateescape")


def _as_operand(path: str) -> str:
    """Keep a relative name from being taken for an option."""
    return path if path.startswith("/") else f"./{path}"


_OUT, _ERR, _FED = 0, 1, 2


class _Talk:
    """Both outputs and the input of one command, carried at the same time.

    Three threads, because each may be the one that blocks: a command that fills its
    error output before it reads its input must not wait for us, nor we for it.
    """

    def __init__(self, stdin: bytes) -> None:
        self._stdin = stdin
        self._news: queue.SimpleQueue[tuple[int, bytes | None]] = queue.SimpleQueue()
        self._said: tuple[list[bytes], list[bytes]] = ([], [])
        self._threads: list[threading.Thread] = []

    def start(self, channel: Channel) -> None:
        """Begin to carry; the threads end with the channel at the latest."""
        self._spawn(self._hear, _OUT, channel.read)
        self._spawn(self._hear, _ERR, channel.read_error)
        if self._stdin:
            self._spawn(self._feed, channel)
        else:
            self._end_input(channel)

    def listen(self, timeout: float | None, on_line: Callable[[str], None] | None) -> None:
        """Collect until both outputs ended. Raises `ConnectError` after `timeout` of silence."""
        ended = 0
        rest = b""
        while ended < 2:
            try:
                kind, piece = self._news.get(timeout=timeout)
            except queue.Empty:
                raise ConnectError(_STALLED) from None
            if piece is None:
                ended += 1
            elif kind != _FED:
                self._said[kind].append(piece)
                if kind == _OUT and on_line is not None:
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if on_line is not None and rest:
            on_line(rest.decode("utf-8", "replace"))

    def text(self, kind: int) -> str:
        """Return everything one output said."""
        return b"".join(self._said[kind]).decode("utf-8", "replace")

    def join(self) -> None:
        """Wait for the threads, which end when the channel is closed."""
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _hear(self, kind: int, read: Callable[[], bytes]) -> None:
        with suppress(ConnectError, OSError, EOFError):
            while piece := read():
                self._news.put((kind, piece))
        self._news.put((kind, None))

    def _feed(self, channel: Channel) -> None:
        with suppress(ConnectError):  # it may end without reading; its exit code tells
            for start in range(0, len(self._stdin), FEED):
                channel.write(self._stdin[start : start + FEED])
                self._news.put((_FED, b""))
            self._end_input(channel)

    @staticmethod
    def _end_input(channel: Channel) -> None:
        with suppress(OSError, EOFError):
            channel.close_input()


def connect(target: SshTarget, *, timeout: float = 15) -> Remote:
    """Connect once, verified.

    Raises `HostKeyMismatch` before any authentication, `AuthenticationFailed`, or
    `ConnectError` when nobody answers.
    """
    return _connect(target, timeout, timeout)


def connect_when_ready(
    target: SshTarget,
    *,
    deadline_s: float = 300,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Remote:
    """Connect as soon as the machine answers; only "not there yet" is tried again.

    `deadline_s` bounds the whole, in seconds of `clock`. Raises what `connect` raises.
    """
    end = clock() + deadline_s
    pause = 0.05
    while True:
        try:
            # A kernel repeats an unanswered SYN after 1, 3 and 7 s: asking anew is sooner.
            return _connect(target, reach_s=3, answer_s=15)
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


def _connect(target: SshTarget, reach_s: float, answer_s: float) -> Remote:
    connection = _verified_connection(target, answer_s)
    if connection.gateway is None:
        connection.connect_kwargs["sock"] = _reach(target, reach_s)
    _open(connection, target)
    remote = Remote(target, connection)
    remote.transport.set_keepalive(15)
    return remote


def _reach(target: SshTarget, timeout: float) -> socket.socket:
    """Open the TCP connection ourselves: its options count from the first byte.

    With Nagle's algorithm on, the handshake alone waits twice for a delayed answer.
    """
    try:
        sock = socket.create_connection((target.address, target.port), timeout)
    except OSError as error:
        raise ConnectError(f"{target.address}:{target.port} does not answer: {error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; paramiko itself never misses an answer
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MS)
    return sock


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
    kwargs: dict[str, Any] = {"allow_agent": target.key is None, "look_for_keys": target.key is None}
    if target.key is not None:
        kwargs["pkey"] = _private_key(target.key)
    kwargs |= {"timeout": timeout, "banner_timeout": timeout, "auth_timeout": 30}
    connection = fabric.Connection(
        target.address,
        user=target.user,
        port=target.port,
        connect_kwargs={**kwargs, "transport_factory": _transport_for(keys)},
        config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
        gateway=openssh.jump(target),
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

        transport = paramiko.Transport(sock, **kwargs)
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


def _open(connection: fabric.Connection, target: SshTarget) -> None:
    import paramiko

    try:
        connection.open()
    except BaseException as error:
        # Fabric takes what it never finished opening for closed.
        cast("paramiko.SSHClient", connection.client).close()
        if isinstance(error, paramiko.AuthenticationException) and not _line_lost(error):
            raise AuthenticationFailed(
                f"{target.user}@{target.address} refused our key",
                hint="nothing is tried again: check the user name and the key",
            ) from error
        if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
            raise ConnectError(
                f"{target.address}:{target.port} does not answer SSH: {error or 'it hung up'}"
            ) from error
        raise


def _line_lost(error: Exception) -> bool:
    """Whether nobody refused anything: paramiko says so only in words."""
    return "transport shut down" in str(error) or "timeout" in str(error)
