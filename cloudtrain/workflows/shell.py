"""`logs`, `attach`, `ssh`, `exec`: the machine's own words and a way into it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from cloudtrain import training
from cloudtrain.errors import UsageError
from cloudtrain.events import Note, Reporter
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Session
from cloudtrain.ssh import openssh
from cloudtrain.ssh.remote import Remote
from cloudtrain.workflows.context import connect_run, layout_on

OPENSSH_FAILED = 255
"""What OpenSSH exits with when it did not get there; a command may too."""


class Sink(Protocol):
    """Where the output of a command goes with `--json`."""

    def result(self, value: object, text: str) -> None:
        """Take the whole, for `--json`."""
        ...


def show_log(
    folder: RunFolder, reporter: Reporter, line: Callable[[str], None], *, follow: bool, lines: int
) -> Session:
    """Show the newest session's log, with `follow` until it ends, and return the session."""
    with connect_run(folder) as remote:
        session = _newest(remote, layout_on(remote, folder))
        session = training.follow(remote, session, line, lines=lines, until_end=follow)
    reporter.emit(Note(f"session {session.number:03d} is {session.how}"))
    return session


def attach(
    folder: RunFolder, reporter: Reporter, line: Callable[[str], None], *, sink: Sink | None = None
) -> int:
    """Enter the running session's screen; without screen show its log until it ends.

    With a `sink` the command that would enter it is told there, for another program to
    run. Raises `UsageError` when no session runs.
    """
    with connect_run(folder) as remote:
        session = _newest(remote, layout_on(remote, folder))
    if session.state != "running":
        raise UsageError(
            f"session {session.number:03d} is {session.how}", hint="`cloudtrain logs` shows its output"
        )
    if sink is not None:
        command = training.attach_command(session) if session.screen else ["tail", "-F", session.log]
        return _tell(folder, command, sink)
    if not session.screen:
        reporter.emit(
            Note("this machine has no screen: the log is shown instead; Ctrl-C leaves the training alone")
        )
        show_log(folder, reporter, line, follow=True, lines=100)
        return 0
    reporter.emit(Note("leave with Ctrl-A D: the training goes on"))
    return _interactive(folder, training.attach_command(session), tty=True)


def open_shell(folder: RunFolder, *, sink: Sink | None = None) -> int:
    """Open an interactive shell; returns OpenSSH's exit code.

    Our own look comes first: what OpenSSH advises on a wrong host key is to trust it.
    With a `sink` the command that would open it is told there instead.
    """
    connect_run(folder).close()
    if sink is not None:
        return _tell(folder, [], sink)
    return _interactive(folder, [], tty=True)


def run_command(folder: RunFolder, command: tuple[str, ...], sink: Sink, *, as_json: bool) -> int:
    """Run a command on the machine and return its exit code.

    Without `as_json` it is OpenSSH that carries input and output, byte for byte, and on a
    terminal Ctrl-C too.
    """
    words = shlex.join(command)
    if not as_json:
        tty = sys.stdin.isatty() and sys.stdout.isatty()
        address = folder.record().address
        code = _interactive(folder, [words], tty=tty)
        if code == OPENSSH_FAILED:
            connect_run(folder).close()  # raises what is the matter, if it is the way there
            if folder.record().address != address:  # it had moved, so nothing was run
                return _interactive(folder, [words], tty=tty)
        return code
    with connect_run(folder) as remote:
        result = remote.run(words, check=False, timeout=None)
    sink.result({"code": result.code, "stdout": result.stdout, "stderr": result.stderr}, "")
    return result.code


def _newest(remote: Remote, layout: Layout) -> Session:
    found = training.sessions(remote, layout)
    if not found:
        raise UsageError("no training was ever started on this machine", hint="`cloudtrain train` starts one")
    return found[-1]


def _tell(folder: RunFolder, command: list[str], sink: Sink) -> int:
    argv = openssh.ssh(folder.target(), *command, tty=True)
    sink.result({"command": argv}, "")
    return 0


def _interactive(folder: RunFolder, command: list[str], *, tty: bool) -> int:
    target = folder.target()
    argv = openssh.ssh(target, *command, tty=tty)
    return subprocess.run(argv, check=False, env=openssh.environment(target)).returncode
