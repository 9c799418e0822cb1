"""One machine: a disk over the image, a booted systemd, and the watch over its power."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtrain.sandbox import processes
from cloudtrain.sandbox.nspawn import cgroups, images, surroundings
from cloudtrain.sandbox.seed import Seed

if TYPE_CHECKING:
    from cloudtrain.sandbox.nspawn.kind import NspawnKind

BOOT_S = 90.0
HALT_S = 20.0
SSH_PORT = 22
REBOOT = 133
"""What systemd-nspawn's `--keep-unit` ends with when the machine asks for a reboot."""
CONSOLE_KEPT = 64 << 10
NETWORK = """\
[Match]
Name=host0
[Network]
Address={address}/24
Gateway={gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
ENTER = r"""
set -eu
lower=$1 disk=$2 groups=$3
shift 3
for group in $groups; do echo $$ >"$group/cgroup.procs"; done
# Only an overlay's work folder remembers that it was not unmounted in order.
rm -rf "$disk/work" && mkdir "$disk/work"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/upper,workdir=$disk/work,volatile" "$disk/root"
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 none /run/systemd/nspawn
exec "$@"
"""
"""Runs in a mount namespace of its own, so that no mount outlives the machine. `volatile`
leaves out the waiting for the host's disk: what is lost with the host's power may be lost."""


@dataclass(slots=True)
class NspawnMachine:
    """A machine of kind `nspawn`."""

    kind: NspawnKind
    id: str
    image: str = ""
    address: str | None = None
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _ending: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def folder(self) -> Path:
        """Its console, and what only the host knows of it."""
        return self.kind.state.machines / self.id

    @property
    def disk(self) -> Path:
        """Its disk: `upper` is what differs from the image."""
        return self.kind.disks / self.id

    def furnish(self, seed: Seed) -> None:
        """Make the disk, with the user data where cloud-init looks for it."""
        for folder in (self.disk / "upper", self.disk / "work", self.disk / "root", self.folder / "keys"):
            folder.mkdir(parents=True)
        for folder in (self.disk / "upper", self.disk / "root", self.folder / "keys"):
            folder.chmod(0o755)
        nocloud = self.disk / "upper/var/lib/cloud/seed/nocloud"
        nocloud.mkdir(parents=True)
        nocloud.chmod(0o700)
        meta = {"instance-id": self.id, "local-hostname": self.id, "public-keys": list(seed.key_pairs)}
        (nocloud / "meta-data").write_text(json.dumps(meta))
        (nocloud / "user-data").write_text(seed.user_data)
        self.log.touch(mode=0o644)

    @property
    def log(self) -> Path:
        """What it wrote to its console, in all of its boots."""
        return self.folder / "console.log"

    def boot(self) -> str:
        """Start it with a new address. Raises `OSError` when SSH does not answer in time."""
        address = self.kind.network.address()
        network = NETWORK.format(address=address, gateway=self.kind.network.gateway)
        (self.folder / "host0.network").write_text(network)
        self.address, self._ending = address, False
        self._start()
        end = time.monotonic() + BOOT_S
        while not _answers(address):
            code = self._child.poll() if self._child else 1
            if code == 0:  # it powered itself off, and has said so
                return address
            if code not in (None, REBOOT):
                raise OSError(f"the machine ended while it booted; see {self.log}")
            if time.monotonic() > end:
                raise OSError(f"no SSH within {BOOT_S:.0f} s; see {self.log}")
            time.sleep(0.02)
        return address

    def halt(self) -> None:
        """Have it shut down in order; by force when that takes long."""
        child = self._expect_end()
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(HALT_S)
        self._end()

    def keep(self, folder: Path, *, reboot: bool) -> None:
        """Copy the disk to `folder/upper`, as an image of its own. Raises `OSError`.

        With `reboot` a running machine is shut down in order first, and started again
        where it was; otherwise the disk is copied as it is at the moment.
        """
        address = self.address
        if reboot and address is not None:
            self.halt()
        folder.mkdir(parents=True)
        # The links, whiteouts and attributes by which an overlay says what is gone are kept too.
        copy = ["cp", "-a", "--reflink=auto", str(self.disk / "upper"), str(folder / "upper")]
        done = subprocess.run(copy, capture_output=True, text=True, check=False)
        if reboot and address is not None:
            self.address, self._ending = address, False
            self._start()
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(f"the disk was not copied: {done.stderr.strip()}")

    def destroy(self) -> None:
        """End it at once and delete the disk; the console stays."""
        self._expect_end()
        self._end()
        shutil.rmtree(self.disk, ignore_errors=True)
        shutil.rmtree(self.folder / "keys", ignore_errors=True)
        for name in ("host0.network", "groups.json"):
            (self.folder / name).unlink(missing_ok=True)

    def console(self) -> str:
        """Return the last 64 KiB of its console, as EC2 does."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - CONSOLE_KEPT))
            return log.read().decode("utf-8", "replace")

    def push_key(self, user: str, public: str, *, for_s: float) -> None:
        """Let the holder of a key in for a while. Raises `LookupError` for a user that is not there."""
        if user not in self._users():
            raise LookupError(user)
        line = f"{public.strip()}\n"
        self._write_pushed(user, add=line)
        timer = threading.Timer(for_s, self._write_pushed, (user,), {"drop": line})
        timer.daemon = True
        timer.start()

    def _write_pushed(self, user: str, *, add: str = "", drop: str = "") -> None:
        with self._lock:
            path = self.folder / "keys" / user
            if not path.parent.is_dir():
                return
            kept = path.read_text().splitlines(keepends=True) if path.exists() else []
            if drop in kept:
                kept.remove(drop)
            part = path.parent / f".{user}"
            part.write_text("".join([*kept, add]))
            part.chmod(0o644)
            part.replace(path)

    def _users(self) -> set[str]:
        for layer in (self.disk / "upper", *self.kind.lower(self.image)):
            try:
                # The machine's root may have put a link there, which must lead nowhere here.
                handle = os.open(layer / "etc/passwd", os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                continue
            with os.fdopen(handle) as file:
                return {line.partition(":")[0] for line in file}
        return set()

    def _start(self) -> None:
        groups = cgroups.make(self.id)
        (self.folder / "groups.json").write_text(json.dumps([str(group) for group in groups]))
        lower = ":".join(str(layer) for layer in self.kind.lower(self.image))
        inside = ["/bin/sh", "-c", ENTER, "enter", lower, str(self.disk), " ".join(map(str, groups))]
        with self.log.open("ab") as console:
            child = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", *_clock(), *inside, *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={"PATH": images.PATH, processes.MARK: self.id},
                start_new_session=True,
            )
        self._child = child
        threading.Thread(target=self._watch, args=(child,), daemon=True, name=f"watch {self.id}").start()

    def _command(self) -> list[str]:
        binds = [f"--bind-ro={path}" for path in self.kind.surroundings.shared]
        return [
            *("systemd-nspawn", "--quiet", "--boot", f"--machine={self.id}"),
            f"--directory={self.disk / 'root'}",
            f"--network-bridge={self.kind.network.name}",
            # Not in the host's systemd, which may not be there.
            *("--register=no", "--keep-unit"),
            *("--resolv-conf=copy-host", "--console=read-only", "--setenv=SYSTEMD_COLORS=0"),
            f"--bind-ro={self.folder / 'host0.network'}:/run/systemd/network/10-host0.network",
            f"--bind-ro={self.folder / 'keys'}:{images.PUSHED_KEYS}",
            f"--bind={self.kind.uv_cache}:{surroundings.CACHE}",
            *binds,
        ]

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        code = child.wait()
        with self._lock:
            if self._ending or self._child is not child:
                return
            self._end_groups()
            if code == REBOOT:
                self._start()
                return
            self._ending = True
        if self.kind.world is not None:
            self.kind.world.powered_off(self.id)

    def _expect_end(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            self._ending = True
            return self._child

    def _end(self) -> None:
        self._end_groups()
        if self._child is not None:
            self._child.wait()
            self._child = None
        self.address = None

    def _end_groups(self) -> None:
        try:
            groups = [Path(name) for name in json.loads((self.folder / "groups.json").read_text())]
        except (OSError, ValueError):
            return
        cgroups.end(groups)


def _clock() -> tuple[str, ...]:
    """Have the machine count its uptime from now, where the kernel can: else it is the host's."""
    if not Path("/proc/self/ns/time").exists():
        return ()
    boot = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    return ("--time", "--boottime", str(-boot), "--monotonic", str(-int(time.monotonic())))


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, SSH_PORT), timeout=0.5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
