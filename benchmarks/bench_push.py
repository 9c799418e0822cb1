"""Pushing many small files over a long line: cloudtrain against what people use instead.

    python -m benchmarks.bench_push                       # the whole table: an hour
    python -m benchmarks.bench_push --rtt 80 --mbit 200 --files 2000 --tools cloudtrain,rsync

Every tool sends the same tree to the same OpenSSH server through the same simulated
line (link.py), one after the other. scp, sftp and Fabric's put move a few files a second
over such a line, so they are stopped after `--limit` seconds and judged by what has
arrived. `raw` is what the line itself carries in four plain streams: the yardstick of
`share`. Trees lie in memory where the system has /dev/shm, so that no disk is measured.
Like `cloudtrain train`, cloudtrain and `rsync, line open` begin with an open connection; the
others make theirs, as they do in life.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.link import link
from cloudtrain.events import Silent
from cloudtrain.models.config import Config
from cloudtrain.models.machine import SshTarget
from cloudtrain.models.run import Layout
from cloudtrain.ssh import openssh
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.ssh.shared import SharedLine
from cloudtrain.transfer.push import push_project
from tests.support.sshd import Sshd

RESULTS = Path(__file__).with_name("results")
SLOW = ("scp", "sftp", "fabric put")


@dataclass(frozen=True, slots=True)
class Cell:
    """One tool over one line."""

    rtt_ms: float
    mbit: float
    tool: str
    seconds: float
    bytes: int
    share: float
    """Of what the line carries by raw streams."""
    load: float
    """Processor seconds a second that the whole machine spent: at `cores` it is the limit, not the line."""
    whole: bool = True
    """False when it was stopped and judged by what had arrived."""


@dataclass
class Bench:
    """One server, one tree, and the tools."""

    root: Path
    tree: Path
    files: int
    size: int
    limit: float
    server: Sshd

    def __post_init__(self) -> None:
        self.tools: dict[str, Callable[[SshTarget, Path], float]] = {
            "cloudtrain": self.cloudtrain,
            "rsync": self.rsync,
            "rsync, line open": self.rsync_open,
            "tar over ssh": self.tar,
            "scp": self.scp,
            "sftp": self.sftp,
            "fabric put": self.put,
        }

    def cell(self, tool: str, rtt: float, mbit: float, raw: float) -> Cell:
        """Let one tool push the tree, once."""
        there = self.root / "there"
        shutil.rmtree(there, ignore_errors=True)
        there.mkdir()
        with link(("127.0.0.1", self.server.port), delay_ms=rtt, mbit=mbit) as port:
            target = replace(self.server.target, port=port)
            before = _processor()
            began = time.monotonic()
            seconds = self.tools[tool](target, there)
            load = (_processor() - before) / (time.monotonic() - began)
        arrived = sum(
            path.is_file() for path in (there / "project" if tool == "cloudtrain" else there).rglob("*")
        )
        whole = arrived >= self.files
        moved = self.size * min(arrived, self.files) // self.files  # files differ in size, and in their order
        return Cell(rtt, mbit, tool, seconds, moved, moved / seconds / raw, load, whole)

    def cloudtrain(self, target: SshTarget, there: Path) -> float:
        """Push over a connection that is open."""
        with connect(target) as remote:
            return _timed(lambda: self._push(remote, there))

    def _push(self, remote: Remote, there: Path) -> None:
        push_project(remote, Config(), self.tree, Layout(str(there)), Silent())

    def rsync(self, target: SshTarget, there: Path) -> float:
        """Make a connection, and push over it."""
        shell = openssh.rsync_shell(target)
        return self._run(["rsync", "-a", "-e", shell, f"{self.tree}/", f"{target.address}:{there}/"])

    def rsync_open(self, target: SshTarget, there: Path) -> float:
        """Push over an OpenSSH connection that is open."""
        with SharedLine(target) as line:
            line.wait(30)
            shell = line.rsync_shell()
            return self._run(["rsync", "-a", "-e", shell, f"{self.tree}/", f"{target.address}:{there}/"])

    def tar(self, target: SshTarget, there: Path) -> float:
        """Stream an archive."""
        far = shlex.join(openssh.ssh(target, f"tar -C {shlex.quote(str(there))} -xf -"))
        return self._run(["bash", "-c", f"tar -C {shlex.quote(str(self.tree))} -cf - . | {far}"])

    def scp(self, target: SshTarget, there: Path) -> float:
        """Copy file by file."""
        options = ["-P" if word == "-p" else word for word in openssh.options(target)]
        return self._run(
            ["scp", "-q", "-r", *options, f"{self.tree}/.", f"{target.user}@{target.address}:{there}"]
        )

    def sftp(self, target: SshTarget, there: Path) -> float:
        """Put file by file, some requests at once."""
        options = ["-P" if word == "-p" else word for word in openssh.options(target)]
        batch = self.root / "batch"
        batch.write_text(f"put -r {self.tree}/. {there}\n")
        return self._run(["sftp", "-q", *options, "-b", str(batch), f"{target.user}@{target.address}"])

    def put(self, target: SshTarget, there: Path) -> float:
        """Call Fabric's `put` for each file."""
        with connect(target) as remote:
            end = time.monotonic() + self.limit
            return _timed(lambda: self._put_each(remote, there, end))

    def _put_each(self, remote: Remote, there: Path, end: float) -> None:
        for path in sorted(self.tree.rglob("*")):
            far = there / path.relative_to(self.tree)
            if path.is_dir():
                remote.connection.run(f"mkdir -p {shlex.quote(str(far))}", hide=True)
            else:
                remote.connection.put(str(path), str(far))  # pyright: ignore[reportUnknownMemberType]
            if time.monotonic() > end:
                return

    def _run(self, words: list[str]) -> float:
        def run() -> None:
            with subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True) as process:
                try:
                    process.wait(self.limit if words[0] in ("scp", "sftp") else 900)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, 15)

        return _timed(run)


def raw_rate(rtt: float, mbit: float, size: int, streams: int = 4) -> float:
    """Return the bytes a second that the line carries in plain streams."""
    with _sink() as address, link(address, delay_ms=rtt, mbit=mbit) as port:
        threads = [threading.Thread(target=_pour, args=(port, size // streams)) for _ in range(streams)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return size // streams * streams / (time.monotonic() - began)


@contextmanager
def _sink() -> Generator[tuple[str, int]]:
    server = socket.create_server(("127.0.0.1", 0))

    def take(connection: socket.socket) -> None:
        while connection.recv(1 << 18):
            pass
        connection.sendall(b".")
        connection.close()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=take, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with server:
        yield server.getsockname()


def _pour(port: int, size: int) -> None:
    block = bytes(1 << 16)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while size > 0:
            connection.sendall(block[:size])
            size -= len(block)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _processor() -> float:
    """Processor seconds that this machine has spent on anything."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    idle = int(words[3]) + int(words[4])
    return (sum(int(word) for word in words[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def make_tree(folder: Path, files: int) -> int:
    """Write half images of 20 to 40 kB that nothing compresses, half labels; return their bytes."""
    chance = random.Random(1)
    blob = chance.randbytes(1 << 20)
    total = 0
    for number in range(files // 2):
        part = f"{number % 20:02d}"
        size = chance.randint(20_000, 40_000)
        start = chance.randint(0, len(blob) - size)
        label = "".join(
            f"{chance.randint(0, 9)} 0.{chance.randint(10000, 99999)} 0.5 0.1 0.1\n" for _ in range(6)
        )
        for kind, name, data in (
            ("images", f"{number:06d}.jpg", blob[start : start + size]),
            ("labels", f"{number:06d}.txt", label.encode()),
        ):
            path = folder / kind / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            total += len(data)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rtt", default="1,40,80,150", help="round trips in milliseconds")
    parser.add_argument("--mbit", default="100,200,500,1000")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--tools", default="", help="all, unless named")
    parser.add_argument("--limit", type=float, default=15, help="seconds for the slow tools")
    parser.add_argument("--repeat", type=int, default=1, help="the best of so many counts")
    parser.add_argument("--out", type=Path, default=RESULTS / "push.json")
    given = parser.parse_args()
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="ctb", dir=shm if shm.is_dir() else None))
    cells: list[Cell] = []
    server = Sshd(root / "machine").start()
    try:
        size = make_tree(root / "tree", given.files)
        bench = Bench(root, root / "tree", given.files // 2 * 2, size, given.limit, server)
        tools = [tool for tool in bench.tools if not given.tools or tool in given.tools.split(",")]
        for rtt in map(float, given.rtt.split(",")):
            for mbit in map(float, given.mbit.split(",")):
                raw = raw_rate(rtt, mbit, min(size, int(mbit * 1e6 / 8 * 4)))
                print(f"{rtt:g} ms, {mbit:g} Mbit/s: raw {raw / 1e6:.1f} MB/s", flush=True)
                for tool in tools:
                    tries = [bench.cell(tool, rtt, mbit, raw) for _ in range(given.repeat)]
                    best = max(tries, key=lambda cell: cell.share)
                    cells.append(best)
                    print(
                        f"  {tool:<18} {best.seconds:7.1f} s {best.bytes / best.seconds / 1e6:7.2f} MB/s"
                        f"  share {best.share:.3f}  load {best.load:.2f}{'' if best.whole else '  (stopped)'}",
                        flush=True,
                    )
                given.out.parent.mkdir(exist_ok=True)
                note = {"files": given.files, "bytes": size, "cores": os.cpu_count(), "python": sys.version}
                rows = [asdict(cell) for cell in cells]
                given.out.write_text(json.dumps({**note, "cells": rows}, indent=1) + "\n")
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
