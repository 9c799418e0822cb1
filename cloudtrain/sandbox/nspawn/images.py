"""The disk that every machine starts from: Debian as it comes, with cloud-init and little else.

Made once, by debootstrap, in the user's cache directory; some 450 MB and two minutes.
It has no host keys and no machine id: those are each machine's own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from cloudtrain.errors import CloudError
from cloudtrain.sandbox.nspawn import aptsources

SUITE = "bookworm"
LOGIN_USER = "ubuntu"
PACKAGES = (
    "ca-certificates", "dbus", "iproute2", "kmod", "libpam-systemd", "netbase", "openssh-server",
    "procps", "python3", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
# debootstrap configures in an order in which cloud-init fails; apt afterwards does not.
# With myhostname the machine knows its own name, without which every sudo waits for DNS.
LATER = ("cloud-init", "libnss-myhostname")
CLOUD = f"""\
datasource_list: [NoCloud]
network: {{config: disabled}}
locale: false
apt: {{preserve_sources_list: true}}
system_info:
  default_user:
    name: {LOGIN_USER}
    gecos: cloudtrain machine
    lock_passwd: true
    groups: [adm, sudo]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
"""
PUSHED_KEYS = "/etc/ssh/pushed_keys"
SSHD = f"AuthorizedKeysFile .ssh/authorized_keys {PUSHED_KEYS}/%u\nUseDNS no\n"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

BUILD = r"""
set -eu
root=$1 suite=$2 mirror=$3 include=$4 later=$5
debootstrap --variant=minbase --include="$include" "$suite" "$root" "$mirror" >&2
mount -t proc proc "$root/proc"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$root" apt-get -q update >&2
# shellcheck disable=SC2086 # a list
chroot "$root" apt-get -q install -y --no-install-recommends $later >&2
chroot "$root" systemctl -q enable systemd-networkd >&2
chroot "$root" systemctl -q mask console-getty.service systemd-resolved.service >&2
chroot "$root" apt-get clean
umount "$root/proc"
rm -f "$root/usr/sbin/policy-rc.d" "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
: >"$root/etc/machine-id"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/log/apt"
"""


def folder() -> Path:
    """Return where the disk lies, or will lie; another recipe has another folder."""
    recipe = "\0".join((SUITE, *PACKAGES, *LATER, CLOUD, SSHD, BUILD))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    # Not below CLOUDTRAIN_HOME: it is the same for every one of those, and costs minutes.
    return user_cache_path("cloudtrain", appauthor=False) / "machines" / f"debian-{SUITE}-{digest}"


def ensure(tell: Callable[[str], None]) -> Path:
    """Return the disk, and make it first where there is none; of two callers one makes it.

    Raises `CloudError` when that fails, with the last lines of what was said.
    """
    made = folder()
    if made.is_dir():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with _alone(made.parent / "making.lock", tell):
        if not made.is_dir():
            for part in made.parent.glob("*.part"):
                shutil.rmtree(part, ignore_errors=True)
            _make(made, tell)
    return made


@contextmanager
def _alone(path: Path, tell: Callable[[str], None]) -> Generator[None]:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another command is making the machines' disk image; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(made: Path, tell: Callable[[str], None]) -> None:
    tell(f"making the machines' disk image, once: Debian {SUITE} by debootstrap, about two minutes")
    begun = time.monotonic()
    part, log = made.with_suffix(".part"), made.with_suffix(".log")
    command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", BUILD, "build"]
    words = [str(part), SUITE, aptsources.mirror(), ",".join(PACKAGES), " ".join(LATER)]
    with log.open("w") as said:
        environ = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{PATH}"}
        done = subprocess.run(
            [*command, *words], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environ, check=False
        )
    if done.returncode != 0:
        last = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
        shutil.rmtree(part, ignore_errors=True)
        raise CloudError(f"the machines' disk image could not be made: {last}", hint=f"read {log}")
    _finish(part)
    part.rename(made)
    log.unlink()
    tell(f"the machines' disk image is made, in {time.monotonic() - begun:.0f} s: {made}")


def _finish(root: Path) -> None:
    (root / "etc/cloud/cloud.cfg.d/90-sandbox.cfg").write_text(CLOUD)
    (root / "etc/ssh/sshd_config.d/60-sandbox.conf").write_text(SSHD)
    (root / PUSHED_KEYS.lstrip("/")).mkdir(mode=0o755)
    root.chmod(0o755)
