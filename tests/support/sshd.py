"""A real OpenSSH server on a loopback port, with a private HOME, for tests."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh import keys

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


@dataclass
class Sshd:
    """One running server. `path` on the machine can be narrowed to hide programs."""

    folder: Path
    path: str = "/usr/local/bin:/usr/bin:/bin"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    options: str = ""
    """More lines of sshd_config."""
    arguments: tuple[str, ...] = ()
    """More arguments of sshd."""

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.user_key = keys.generate("user")
        self.host_key = keys.generate("host")
        keys.write_private(self.folder / "key", self.user_key.private)
        self.pin()

    @property
    def log(self) -> Path:
        return self.folder / "sshd.log"

    @property
    def target(self) -> SshTarget:
        return SshTarget(
            address="127.0.0.1",
            port=self.port,
            user=getpass.getuser(),
            key=self.folder / "key",
            known_hosts=self.folder / "known_hosts",
            alias="machine",
        )

    def pin(self) -> None:
        keys.pin(self.folder / "known_hosts", "machine", (self.host_key.public,))

    def handshakes(self) -> int:
        """Count the connections that were authenticated."""
        return self.log.read_text().count("Accepted publickey")

    def start(self) -> Sshd:
        keys.write_private(self.folder / "host_key", self.host_key.private)
        (self.folder / "authorized_keys").write_text(self.user_key.public + "\n")
        (self.folder / "authorized_keys").chmod(0o600)
        session = self.folder / "session.sh"
        session.write_text(
            "#!/bin/bash\n"
            f"export HOME='{self.home}' SCREENDIR='{self.folder}/screens' PATH='{self.path}'\n"
            "unset SSH_AUTH_SOCK XDG_CACHE_HOME XDG_DATA_HOME XDG_CONFIG_HOME VIRTUAL_ENV\n"
            'cd "$HOME"\n'
            'case "$SSH_ORIGINAL_COMMAND" in\n'
            '  "") exec bash -l;;\n'
            "  internal-sftp|*/sftp-server) exec /usr/lib/openssh/sftp-server;;\n"
            '  *) exec bash -c "$SSH_ORIGINAL_COMMAND";;\n'
            "esac\n"
        )
        session.chmod(0o755)
        (self.folder / "screens").mkdir(mode=0o700, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPidFile none\nUsePAM no\n"
            "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"Subsystem sftp internal-sftp\nForceCommand {session}\nPermitRootLogin yes\n"
            "LogLevel VERBOSE\nMaxStartups 50:30:100\n"
            # Bash under sshd reads the developer's ~/.bashrc at level 1: slow, and not the machine's.
            f"SetEnv SHLVL=1\n{self.options}"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.process = subprocess.Popen(
            [SSHD, "-D", "-f", str(config), "-E", str(self.log), *self.arguments],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait()
        return self

    def bring(self, programs: Mapping[str, str]) -> Path:
        """Put scripts, by name, before all other programs of the machine; return their folder."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        for name, text in programs.items():
            (folder / name).write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        self.stop()
        self.path = f"{folder}:{self.path}"
        self.start()
        return folder

    def _wait(self) -> None:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server, every connection, and everything started through it."""
        if self.process is not None:
            self.drop_connections()
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        marker = f"HOME={self.home}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue

    def drop_connections(self) -> None:
        """Cut every open connection, as a dying line would; new ones are welcome."""
        for child in self.connections():
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(child, signal.SIGKILL)

    def connections(self) -> list[int]:
        """Return the processes that serve a connection now, one each."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]


@contextmanager
def stopped(sshd: Sshd) -> Generator[Sshd]:
    """Start a server, and end it with everything started through it."""
    try:
        yield sshd.start()
    finally:
        sshd.stop()
