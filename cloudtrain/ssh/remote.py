"""One verified connection to one machine, and its channels.

`Remote` is what everything above sees of a machine. It opens a Fabric connection
whose host key must be pinned, and shares at most `CHANNELS` channels among threads:
OpenSSH refuses more than 10 sessions a connection by default (MaxSessions).
"""

from __future__ import annotations

import posixpath
import shlex
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cloudtrain.errors import AuthenticationFailed, ConnectError, HostKeyMismatch
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.channel import CHUNK, ERR, KILLED, OUT, Channel, Talk
from cloudtrain.ssh.verified import open_verified

__all__ = [
    "CHANNELS", "CHUNK", "KILLED", "Channel", "CommandFailed", "Remote", "Result", "connect", "connect_when_ready",
    "was_refused",
]  # fmt: skip

if TYPE_CHECKING:
    import fabric
    import paramiko

CHANNELS = 8


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


class Remote:
    """A machine we are connected to. Make one with `connect` or `connect_when_ready`."""

    def __init__(self, target: SshTarget, connection: fabric.Connection) -> None:
        self.target = target
        self.connection = connection
        self.closed = threading.Event()
        """Set when nobody wants the machine any more; what goes there by another way ends too."""
        self._budget = threading.BoundedSemaphore(CHANNELS)
        self._opening = threading.Lock()
        self._home = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and end what uses it in other threads; closed already is fine."""
        self.closed.set()
        self.connection.close()

    def reopen(self, *, deadline_s: float = 300) -> None:
        """Connect anew in place, to the same pinned key: the machine has rebooted.

        Raises what `connect_when_ready` raises, and `ConnectError` when it is closed meanwhile.
        """
        self.connection.close()
        self.connection = connect_when_ready(self.target, deadline_s=deadline_s, sleep=self._rest).connection
        if self.closed.is_set():
            self.connection.close()

    def _rest(self, seconds: float) -> None:
        if self.closed.wait(seconds):
            raise ConnectError(f"the connection to {self.target.address} was closed")

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

    @property
    def home(self) -> str:
        """The user's HOME on the machine, asked once a connection."""
        if not self._home:
            self._home = self.run('printf %s "$HOME"').stdout
        return self._home

    @property
    def host_key(self) -> str:
        """The key that the machine answered with, `kind base64`; it was pinned."""
        key = self.transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

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
                try:
                    raw.exec_command(_encoded(command))
                except OSError as error:  # of the line, unlike those of what is done with the channel
                    raise ConnectError(f"the connection to {self.target.address} broke: {error}") from error
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
        # One at a time, waiting included: paramiko can lose the connection when several are refused.
        with self._opening:
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
        talk = Talk(stdin)
        try:
            with self.open(command) as channel:
                talk.start(channel)
                talk.listen(timeout, on_line)
                channel.settimeout(timeout)
                code = channel.exit_code()
        finally:
            talk.join()
        result = Result(command, code, talk.text(OUT), talk.text(ERR))
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


def connect(target: SshTarget, *, timeout: float = 15) -> Remote:
    """Connect once, verified.

    Raises `HostKeyMismatch` before any authentication, `AuthenticationFailed`, or
    `ConnectError` when nobody answers.
    """
    return Remote(target, open_verified(target, reach_s=timeout, answer_s=timeout))


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
            return Remote(target, open_verified(target, reach_s=3, answer_s=15))
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
