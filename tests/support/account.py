"""A throw-away user, and an sshd that lets only its password in.

The user is known in a mount namespace of the server's own, with a layer over /etc, so this
computer's /etc/passwd is never replaced. Needs root, for only root may add a user and check a
password; a developer without it sees the tests skipped with that reason, and with CI=true they
fail instead.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudtrain.ssh import keys
from tests.support.sshd import SSHD, free_port

SERVE = """\
set -e
mount -t tmpfs none "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work"
mount -t overlay none -o "lowerdir=/etc,upperdir=$1/layer/upper,workdir=$1/layer/work" /etc
useradd -u "$3" -m -d "$4" -s /bin/bash -K UMASK=077 "$2"
chpasswd
exec "$5" -D -f "$1/sshd_config" -E "$1/sshd.log"
"""
"""What runs in the namespace; the password comes on its input, and all of it ends with its processes."""


@dataclass
class Account:
    """A user with a password, no sudo, and a server on a port of its own."""

    name: str
    uid: int
    password: str
    home: Path
    folder: Path
    address: str
    port: int
    host_key: keys.KeyPair
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What sshd wrote."""
        return (self.folder / "sshd.log").read_text()

    def start(self, path: str) -> None:
        """Start sshd; `path` is what its sessions find programs in."""
        keys.write_private(self.folder / "host_key", self.host_key.private)
        (self.folder / "sshd_config").write_text(
            f"ListenAddress {self.address}:{self.port}\nHostKey {self.folder}/host_key\nPidFile none\n"
            "UsePAM yes\nPasswordAuthentication yes\nPubkeyAuthentication no\n"
            "KbdInteractiveAuthentication no\nAuthenticationMethods password\n"
            f"AllowUsers {self.name}\nSubsystem sftp internal-sftp\nLogLevel VERBOSE\n"
            f"SetEnv PATH={path} SHLVL=1\nMaxAuthTries 2\nMaxStartups 50:30:100\n"
        )
        (self.folder / "layer").mkdir()
        words = [str(self.folder), self.name, str(self.uid), str(self.home), SSHD]
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "bash", "-c", SERVE, "serve", *words],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.name}:{self.password}\n".encode())
        self.process.stdin.close()
        end = time.monotonic() + 10
        while "Server listening" not in (self.log if (self.folder / "sshd.log").exists() else ""):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end
            time.sleep(0.02)

    def processes(self) -> list[int]:
        """Every process of the user."""
        said = subprocess.run(
            ["pgrep", "-u", str(self.uid)], capture_output=True, text=True, check=False
        ).stdout
        return [int(pid) for pid in said.split()]


def require_root() -> None:
    """Skip without root, or fail where CI must show it."""
    missing = [name for name in ("useradd", "chpasswd", "unshare", "pgrep") if shutil.which(name) is None]
    if os.geteuid() == 0 and not missing:
        return
    why = f"needs {', '.join(missing)}" if missing else "needs root: a user is added, and a password checked"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def account(
    folder: Path, *, port: int = 2222, path: str = "/usr/local/bin:/usr/bin:/bin"
) -> Generator[Account]:
    """Serve a new user, and take user, processes and files away again."""
    require_root()
    name = f"ct{secrets.token_hex(4)}"
    home = Path("/var/tmp") / name
    made = Account(
        name=name,
        uid=30_000 + secrets.randbelow(30_000),
        password=f"p'{secrets.token_hex(8)} \"$x\\",
        home=home,
        folder=folder,
        address=f"127.0.{secrets.randbelow(200) + 10}.{secrets.randbelow(200) + 2}",
        port=port or free_port(),
        host_key=keys.generate("host"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    try:
        made.start(path)
        yield made
    finally:
        _remove(made)


def _remove(made: Account) -> None:
    if made.process is not None:
        os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait()
    end = time.monotonic() + 10
    while (left := made.processes()) and time.monotonic() < end:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    shutil.rmtree(made.home, ignore_errors=True)
