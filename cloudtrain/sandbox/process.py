"""Machines of kind `process`: an OpenSSH server of their own, as an ordinary user.

Each listens on an address of its own in 127.0.0.0/8, all of a sandbox on one port, and
has a private HOME and SCREENDIR. There is no root in them: sudo, apt, reboot and
power-off are not available, which is a fact the steps can read. Only the guard, which
runs as the same ordinary user, can power one off (power.py).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from cloudtrain.errors import UsageError
from cloudtrain.sandbox import addresses, power, processes, sshd, surroundings
from cloudtrain.sandbox.imds import MetadataServer
from cloudtrain.sandbox.isolation import Person, person
from cloudtrain.sandbox.machines import World
from cloudtrain.sandbox.processes import Leader
from cloudtrain.sandbox.pushed import PushedKeys
from cloudtrain.sandbox.seed import Seed
from cloudtrain.sandbox.state import Delays, State
from cloudtrain.ssh import keys

SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"
SFTP = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
BOOT_TRIES = 5
BOOT_S = 10.0


@dataclass(slots=True)
class ProcessKind:
    """Makes machines below one state folder."""

    state: State
    who: Person
    ssh_port: int
    sshd: str
    sftp: str
    extra: str = ""
    shortened: Mapping[str, float] = field(default_factory=dict[str, float])
    """What of a guard's configuration passes faster here."""
    world: World | None = field(default=None, repr=False)

    def join(self, world: World) -> None:
        """Learn the cloud around the machines, and tell them of it from now on."""
        self.world = world

    @property
    def login_user(self) -> str:
        """`ubuntu` for root, else the caller's own name."""
        return self.who.name

    def create(self, instance_id: str, seed: Seed) -> ProcessMachine:
        """Make home, keys and sshd's files of a machine."""
        machine = ProcessMachine(self, instance_id)
        machine.furnish(seed)
        return machine

    def reap(self) -> list[str]:
        """End and delete the machines of a server that is gone."""
        left = {entry.name for entry in self.state.machines.glob("i-*")}
        left |= {entry.name for entry in self.state.home.glob("i-*")}
        for instance_id in left:
            machine = ProcessMachine(self, instance_id)
            machine.destroy()
            shutil.rmtree(machine.folder, ignore_errors=True)
        return sorted(left)


def process_kind(state: State) -> ProcessKind:
    """Return the kind for this caller. Raises `UsageError` for a program or right that is missing."""
    path = os.environ.get("PATH", os.defpath) + SBIN
    server = shutil.which("sshd", path=path)
    sftp = next((name for name in SFTP if Path(name).exists()), None)
    if server is None or sftp is None:
        raise UsageError(
            "the sandbox's machines need an OpenSSH server, and there is none here",
            hint="`apt-get install openssh-server screen rsync`",
        )
    who = person()
    # Only this folder: in one that a machine owns it could put links in root's way.
    who.own(state.home / ".cache" / "uv", 0o755)
    surroundings.place_uv(state.home / ".bin")
    return ProcessKind(
        state, who, addresses.free_port(), server, sftp, sshd.newer_options(), Delays.of(os.environ).guard
    )


@dataclass(slots=True)
class ProcessMachine:
    """One machine: a home, a folder it cannot write, and a session of processes."""

    kind: ProcessKind
    id: str
    address: str | None = None
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _pushed: PushedKeys = field(init=False, repr=False)
    _guard: power.GuardFiles | None = field(default=None, repr=False)
    _switch: power.Switch | None = field(default=None, repr=False)
    _imds: MetadataServer | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._pushed = PushedKeys(self.folder / "pushed_keys")

    @property
    def folder(self) -> Path:
        """Sshd's files and log, as this process sees them."""
        return self.kind.state.machines / self.id

    @property
    def home(self) -> Path:
        """The machine's disk, as this process sees it."""
        return self.kind.state.home / self.id

    @property
    def log(self) -> Path:
        """Sshd's log: one line `Accepted publickey` a handshake."""
        return self.folder / "sshd.log"

    @property
    def seen_home(self) -> str:
        """The home as the machine sees it."""
        return f"/home/{self.id}" if self.kind.who.isolated else str(self.home)

    def furnish(self, seed: Seed) -> None:
        """Write everything that does not change from boot to boot."""
        own = self.kind.who.own
        self.home.mkdir(parents=True)
        self.folder.mkdir(parents=True, mode=0o755)
        own(self.home, 0o755)
        for folder in (self.home / ".ssh", self.home / ".screen", self.home / ".sshd"):
            folder.mkdir()
            own(folder, 0o700)
        _write(self.home / ".ssh" / "authorized_keys", "".join(f"{key}\n" for key in seed.authorized))
        own(self.home / ".ssh" / "authorized_keys", 0o600)
        # In the home: like root on a real machine, its user may replace the machine's key.
        keys.write_private(self.home / ".sshd" / "host_key", seed.host_private.rstrip() + "\n")
        own(self.home / ".sshd" / "host_key", 0o600)
        self._guard = power.guard_of(seed.user_data)
        if self._guard is not None:
            power.place(self._guard, self.folder, self._seen_folder())
        _write(self.folder / "console.log", sshd.console_text(seed, guarded=self._guard is not None))
        self._join()
        self._write_session()

    def boot(self) -> str:
        """Start sshd on a free address. Raises `OSError` when it does not come up."""
        for name in ("tmp", "var-tmp"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
            self.kind.who.own(self.folder / name, 0o1777 if self.kind.who.isolated else 0o700)
        _write(self.folder / "boot_id", f"{uuid.uuid4()}\n").chmod(0o444)
        self.log.touch()
        self.kind.who.own(self.log, 0o644)
        self._configure_guard()
        for _ in range(BOOT_TRIES):
            address = addresses.free_address(self.kind.ssh_port)
            if self._listen(address):
                self.address = address
                return address
            processes.end(self.id, self._leader())
        raise OSError(f"sshd did not start; see {self.log}")

    def halt(self) -> None:
        """End every process: politely first, as a shutdown does."""
        self._end(grace_s=0.3)

    def destroy(self) -> None:
        """End every process and delete the disk; logs stay."""
        self._end(grace_s=0)
        self._pushed.clear()
        if self._switch is not None:
            self._switch.close()
        if self._imds is not None:
            self._imds.close()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self._screens(), ignore_errors=True)
        for entry in self.folder.glob("*") if self.folder.exists() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.suffix != ".log":
                entry.unlink()

    def console(self) -> str:
        """Return what cloud-init would have printed, host keys included."""
        return (self.folder / "console.log").read_text()

    def keep(self, folder: Path, *, reboot: bool) -> None:
        """Copy nothing: what is installed in such a machine is the host's."""

    def push_key(self, user: str, public: str, *, for_s: float) -> None:
        """Let the holder of a key in for `for_s` seconds. Raises `LookupError` for another user."""
        if user != self.kind.who.name:
            raise LookupError(user)
        self._pushed.push(public, for_s)

    def _end(self, *, grace_s: float) -> None:
        processes.end(self.id, self._leader(), grace_s=grace_s)
        if self._child is not None:
            self._child.wait()
            self._child = None
        self.address = None

    def _join(self) -> None:
        world = self.kind.world
        if world is not None:
            self._imds = MetadataServer(world, self.id)
            self._switch = power.Switch(
                self.folder / "power", self.kind.who, lambda: world.powered_off(self.id)
            )

    def _configure_guard(self) -> None:
        if self._guard is None or self._imds is None:
            return
        power.configure(
            self._guard,
            self.folder,
            self._seen_folder(),
            self.seen_home,
            self._imds.url,
            shortened=self.kind.shortened,
            booted=0.0 if self.kind.who.own_time else power.uptime(),
        )

    def _write_session(self) -> None:
        who, seen = self.kind.who, self._seen_folder()
        root = "/home" if who.isolated else str(self.kind.state.home)
        screens = self._screens()
        screens.mkdir(mode=0o700, exist_ok=True)
        variables = {
            **surroundings.settings(os.environ, self.home, self.seen_home, who),
            "HOME": self.seen_home,
            "USER": who.name,
            "LOGNAME": who.name,
            "SCREENDIR": f"{self.seen_home}/.screen" if who.isolated else str(screens),
            "PATH": f"{root}/.bin:/usr/local/bin:/usr/bin:/bin",
            "UV_CACHE_DIR": f"{root}/.cache/uv",
            "LANG": "C.UTF-8",
            "CLOUDTRAIN_SSHD_KEY": f"{self.seen_home}/.sshd/host_key",
            "CLOUDTRAIN_SSHD_RELOAD": f'kill -HUP "$(cat {shlex.quote(self.seen_home)}/.sshd/pid)"',
            # Where the SDKs look for it.
            **({"AWS_EC2_METADATA_SERVICE_ENDPOINT": self._imds.url} if self._imds else {}),
            processes.MARK: self.id,
        }
        if not who.isolated:
            variables["TMPDIR"] = str(self.folder / "tmp")
        text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
        who.own(_write(self.folder / "environment", text), 0o600)
        _write(self.folder / "session", sshd.session(seen, self.kind.sftp)).chmod(0o755)
        # A login shell reads /etc/profile, which sets PATH anew.
        profile = f"[ -f ~/.bashrc ] && . ~/.bashrc\n. {shlex.quote(seen)}/environment\n"
        who.own(_write(self.home / ".profile", profile), 0o644)
        if who.isolated:
            who.accounts(self.folder)

    def _listen(self, address: str) -> bool:
        who, seen = self.kind.who, self._seen_folder()
        config = sshd.config(
            self.id,
            address=address,
            port=self.kind.ssh_port,
            folder=seen,
            home=self.seen_home,
            extra=self.kind.extra,
        )
        _write(self.folder / "sshd_config", config).chmod(0o644)
        seen_log = f"{seen}/sshd.log"
        command = [self.kind.sshd, "-D", "-f", f"{seen}/sshd_config", "-E", seen_log]
        if self._guard is not None:
            beside = f'/bin/sh {shlex.quote(seen)}/guard < /dev/null & exec "$@"'
            command = ["/bin/sh", "-c", beside, "guarded", *command]
        start = self.log.stat().st_size
        with (self.folder / "boot.log").open("ab") as errors:
            self._child = subprocess.Popen(
                who.command(self.folder, self.kind.state.home, command),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={processes.MARK: self.id, "PATH": "/usr/bin:/bin" + SBIN},
                start_new_session=True,
            )
        leader = processes.leader_of(self._child.pid)
        _write(self.folder / "leader.json", json.dumps(asdict(leader)))
        return self._answers(self._child, start)

    def _answers(self, child: subprocess.Popen[bytes], start: int) -> bool:
        # The log tells, not a connection: tests and benchmarks count those.
        end = time.monotonic() + BOOT_S
        while child.poll() is None and time.monotonic() < end:
            with self.log.open("rb") as log:
                log.seek(start)
                if b"Server listening" in log.read():
                    return True
            time.sleep(0.005)
        return False

    def _leader(self) -> Leader | None:
        try:
            return Leader(**json.loads((self.folder / "leader.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _seen_folder(self) -> str:
        return "/home/.machine" if self.kind.who.isolated else str(self.folder)

    def _screens(self) -> Path:
        # A socket's path has 108 bytes at most, and screen puts its own name after this one.
        own = self.home / ".screen"
        if self.kind.who.isolated or len(str(own)) < 60:
            return own
        return Path("/tmp") / f"ct-{os.getuid()}-{sha256(str(own).encode()).hexdigest()[:10]}"  # noqa: S108


def _write(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)  # an earlier boot's may be read-only
    path.write_text(text)
    return path
