"""A Docker engine of the tests' own: its own folder and socket, nothing of it stays.

No registry is asked: the one image is a few empty folders, and the tests mount this computer's
/usr into it. Root on Linux with dockerd installed, and where CI is set no excuse.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = "cloudtrain-test/skeleton:1"
DOCKERD = shutil.which("dockerd") or "/usr/sbin/dockerd"


@dataclass
class Engine:
    """One running dockerd."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """DOCKER_HOST of it."""
        return f"unix://{self.folder}/socket"

    def call(self, *words: str, given: bytes | None = None) -> str:
        """Run `docker` and return its output."""
        command = ["docker", "--host", self.host, *words]
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def path(self) -> str:
        """A PATH on which `docker` is one that asks this engine."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        wrapper = programs / "docker"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("docker")} --host {self.host} "$@"\n')
        wrapper.chmod(0o755)
        return f"{programs}:/usr/local/bin:/usr/bin:/bin"

    def start(self) -> None:
        """Start it; bridge and firewall stay as they are."""
        (self.folder / "daemon.json").write_text("{}")
        words = ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        words += ["--host", self.host, "--pidfile", f"{self.folder}/pid", "--config-file"]
        words += [f"{self.folder}/daemon.json", "--iptables=false", "--bridge=none", "--ip-masq=false"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [DOCKERD, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 60
        asked = ["docker", "--host", self.host, "version"]
        while subprocess.run(asked, capture_output=True, check=False).returncode != 0:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def stop(self) -> None:
        """End it with its containers."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def clear(self) -> None:
        """Remove every container."""
        names = self.call("ps", "--all", "--quiet").split()
        if names:
            self.call("rm", "--force", *names)


def require_docker() -> None:
    """Skip where no engine can be started; fail instead where CI is set."""
    why = ""
    if os.geteuid() != 0:
        why = "a Docker engine of our own needs root"
    elif not Path(DOCKERD).exists() or shutil.which("docker") is None:
        why = "not installed: docker.io"
    if why:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


@contextmanager
def engine() -> Generator[Engine]:
    """Start an engine with the one image, and leave nothing of it."""
    require_docker()
    # Near the top: a socket's path ends at 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ct-docker-", dir="/var/tmp"))
    made = Engine(folder)
    try:
        made.start()
        made.call("import", "-", IMAGE, given=skeleton())
        yield made
        made.clear()
    finally:
        made.stop()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if str(folder) in line:
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def skeleton() -> bytes:
    """A root file system that has everything but /usr."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("usr", "etc", "proc", "sys", "dev", "run", "sbin", "var", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name in ("bin", "lib", "lib64"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(entry)
    return made.getvalue()
