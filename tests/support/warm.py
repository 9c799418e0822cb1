"""Commands as processes of their own that need not import everything anew.

Half of what a test of the whole road computes is Python reading boto3, paramiko and us. One
server a test process has read them once; every command is a fork of it with its own arguments,
environment, folder, output, session and end. A command that must begin as an interpreter does is
started by `subprocess` as ever, and all of them are with THOROUGH=1.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tests.support.thorough import THOROUGH

NUMBER = struct.Struct("=i")


def run(
    module: str, args: tuple[str, ...], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module args` to its end.

    Raises `subprocess.TimeoutExpired` with the output when it took too long and was killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        asked = _Asked(module, args, cwd, env, timeout, out, err)
        code = asked.spawned() if _cold(env) else asked.forked()
        texts: list[str] = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    if code is None:
        raise subprocess.TimeoutExpired([module, *args], timeout, *texts)
    return subprocess.CompletedProcess([module, *args], code, *texts)


def _cold(env: Mapping[str, str]) -> bool:
    changed = (name for name in env.keys() | os.environ.keys() if env.get(name) != os.environ.get(name))
    return THOROUGH or any(name.startswith(("PYTHON", "LD_")) for name in changed)


@dataclass(frozen=True)
class _Asked:
    """One command and where its output goes. Either way gives its exit code, None when it took too long."""

    module: str
    args: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    timeout: float
    out: IO[bytes]
    err: IO[bytes]

    def spawned(self) -> int | None:
        process = subprocess.Popen(
            [sys.executable, "-m", self.module, *self.args],
            cwd=self.cwd, env=self.env,
            stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None

    def forked(self) -> int | None:
        asked = json.dumps([self.module, self.args, str(self.cwd), dict(self.env)]).encode()
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(_server())
            socket.send_fds(line, [NUMBER.pack(len(asked))], [self.out.fileno(), self.err.fileno()])
            line.sendall(asked)
            pid = _number(line)
            line.settimeout(self.timeout)
            try:
                return _number(line)
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                return None


def _number(line: socket.socket) -> int:
    return int(NUMBER.unpack(line.recv(NUMBER.size, socket.MSG_WAITALL))[0])


@cache
def _server() -> str:
    """Start this process's server; it ends with us, by the end of its input."""
    address = f"\0cloudtrain-warm-{os.getpid()}-{os.urandom(4).hex()}"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm", address[1:]],
        cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    _running.append(server)
    return address


_running: list[subprocess.Popen[bytes]] = []
"""Keeps the server's input open."""


def _serve(address: str) -> None:
    import cloudtrain.providers
    import cloudtrain.workflows

    for package in (cloudtrain.workflows, cloudtrain.providers):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(found.name)
    for name in ("fabric", "cloudtrain.cli.app", "cloudtrain.console", "cloudtrain.wiring", "botocore.auth"):
        import_module(name)
    gc.freeze()  # else a fork's first collection copies all that was read
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for a command
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")
        listener.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            line, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _attend(line)
            line.close()


def _attend(line: socket.socket) -> None:
    """Fork one command, say its pid, wait for it, and say its exit code as `subprocess` would."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, fds, _, _ = socket.recv_fds(line, NUMBER.size, 2)
    left, asked = int(NUMBER.unpack(head)[0]), b""
    while len(asked) < left:
        asked += line.recv(left - len(asked))
    pid = os.fork()
    if pid == 0:
        line.close()
        module, args, cwd, env = json.loads(asked)
        _become(module, args, cwd, env, fds)
    try:
        line.sendall(NUMBER.pack(pid))
        line.sendall(NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    finally:
        os._exit(0)  # a fork has nothing to tidy up


def _become(module: str, args: list[str], cwd: str, env: dict[str, str], fds: list[int]) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((null, *fds)):
        os.dup2(fd, number)
    os.closerange(3, 256)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    sys.argv = [module, *args]
    code = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:  # noqa: BLE001 - printed as an interpreter would
        traceback.print_exc()
    _end(code)


def _end(code: int) -> None:
    """End as an interpreter does: its threads, what it registered, its output."""
    own: Any = (threading, atexit)
    own[0]._shutdown()
    own[1]._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
