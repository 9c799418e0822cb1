"""Whose processes a machine's are: never root's, even when the caller is root.

For an ordinary caller they are the caller's own. For root each machine gets mount and
PID namespaces of its own, a private /etc/passwd with a user `ubuntu`, private /tmp and
/dev/shm, and the state's home folder as /home; then every capability and the way back
to one is dropped before sshd starts. One mount holds the homes and the package cache,
because hard links do not cross mounts, and a second environment is to cost seconds.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.errors import UsageError

FIRST_UID = 64017
"""Above what adduser gives away, below systemd's dynamic users; the next one if it is taken."""

_NAMESPACES = ("unshare", "--mount", "--propagation", "private")
_OWN_PIDS = ("--pid", "--fork", "--kill-child", "--mount-proc")
_OWN_TIME = ("--time", "--boottime")

ENTER = r"""
set -eu
machine=$1 home=$2 tty=$3
shift 3
mount --bind "$machine" "$home/.machine"
mount --rbind "$home" /home
cd /home/.machine
mkdir -p etc/own etc/work
cp passwd group etc/own/
mount -t overlay etc -o lowerdir=/etc,upperdir=etc/own,workdir=etc/work /etc 2>/dev/null || {
  mount --bind passwd /etc/passwd
  mount --bind group /etc/group
}
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
mount -t devpts -o "newinstance,gid=$tty,mode=620,ptmxmode=666" devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
[ "$$" != 1 ] || mount --bind boot_id /proc/sys/kernel/random/boot_id
for folder in /run/dbus /run/nscd /run/systemd/private; do
  if [ -d "$folder" ]; then mount -t tmpfs -o mode=755 none "$folder"; fi
  if [ -S "$folder" ]; then mount --bind /dev/null "$folder"; fi
done
mount --bind var-tmp /var/tmp
mount --bind tmp /tmp
cd /home
exec "$@"
"""
"""Runs as root inside the namespaces. /etc is laid over the host's, because a mount on a file is
lost as soon as the host replaces that file, as useradd does with passwd. D-Bus is hidden because power-off can be asked over it;
terminals are the machine's own because an sshd without root can only use one of group tty."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who a machine's processes are, and how they see the state's folders."""

    name: str
    uid: int
    gid: int
    isolated: bool
    own_pids: bool = False
    own_time: bool = False

    def own(self, path: Path, mode: int) -> Path:
        """Give a file or folder to this person and return it."""
        path.chmod(mode)
        if self.isolated:
            os.chown(path, self.uid, self.gid)
        return path

    def command(self, machine: Path, home: Path, command: list[str]) -> list[str]:
        """Return `command` as it has to be started."""
        if not self.isolated:
            return command
        drop = [
            "setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.gid}",
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--ambient-caps=-all",
            "--bounding-set=-all",
            "--",
        ]
        apart = [*_NAMESPACES, *(_OWN_PIDS if self.own_pids else ())]
        if self.own_time:  # a machine that boots now has been up for 0 seconds
            apart += [*_OWN_TIME, str(-int(time.clock_gettime(time.CLOCK_BOOTTIME)))]
        return [*apart, "/bin/sh", "-c", ENTER, "enter", str(machine), str(home), _tty(), *drop, *command]

    def accounts(self, folder: Path) -> None:
        """Write the passwd and group files of a machine, with this person in them."""
        line = f"{self.name}:*:{self.uid}:{self.gid}:cloudtrain machine:/home/{folder.name}:/bin/bash"
        _with_line(Path("/etc/passwd"), folder / "passwd", self.name, line)
        _with_line(Path("/etc/group"), folder / "group", self.name, f"{self.name}:*:{self.gid}:")


def person() -> Person:
    """Return whose processes machines are for this caller.

    Raises `UsageError` for root where no mount namespace can be had.
    """
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid())
        return Person(entry.pw_name, entry.pw_uid, entry.pw_gid, isolated=False)
    missing = [name for name in ("unshare", "setpriv", "mount") if not shutil.which(name)]
    if missing or not _works(*_NAMESPACES):
        why = f"{', '.join(missing)} is missing" if missing else "mount namespaces are not permitted here"
        raise UsageError(
            f"as root the sandbox keeps its machines apart from the host, and {why}",
            hint="run cloudtrain as an ordinary user, or give the container the right to mount",
        )
    uid = _unused_uid()
    own_pids = _works(*_NAMESPACES, *_OWN_PIDS)
    own_time = own_pids and _works(*_NAMESPACES, *_OWN_PIDS, *_OWN_TIME, "0")
    return Person("ubuntu", uid, uid, isolated=True, own_pids=own_pids, own_time=own_time)


def _works(*command: str) -> bool:
    probe = ["mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run([*command, *probe], capture_output=True, check=False).returncode == 0


def _tty() -> str:
    try:
        return str(grp.getgrnam("tty").gr_gid)
    except KeyError:
        return "5"


def _unused_uid() -> int:
    uid = FIRST_UID
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    while uid in taken:
        uid += 1
    return uid


def _with_line(source: Path, target: Path, name: str, line: str) -> None:
    # An Ubuntu host has a user of this name: the machine's own takes its place.
    kept = [row for row in source.read_text().splitlines() if not row.startswith(f"{name}:")]
    target.write_text("\n".join([line, *kept]) + "\n")
    target.chmod(0o644)
