"""What a `process` machine's OpenSSH server is told, and what its console shows. Texts only."""

from __future__ import annotations

import re
import shlex
import subprocess

from cloudtrain.sandbox import processes
from cloudtrain.sandbox.seed import Seed
from cloudtrain.ssh import keys

CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {home}/.sshd/host_key
AuthorizedKeysFile {home}/.ssh/authorized_keys {folder}/pushed_keys
PidFile {home}/.sshd/pid
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AcceptEnv LANG LC_*
SetEnv {mark}
X11Forwarding no
PrintMotd no
Subsystem sftp internal-sftp
ForceCommand {folder}/session
LogLevel VERBOSE
{extra}
"""

SESSION = """\
#!/bin/bash
. {folder}/environment
cd "$HOME" || exit 1
case ${{SSH_ORIGINAL_COMMAND-}} in
  "") exec -l bash ;;
  internal-sftp | */sftp-server) exec {sftp} -d "$HOME" ;;
  *) exec bash -c "$SSH_ORIGINAL_COMMAND" ;;
esac
"""


def config(machine_id: str, *, address: str, port: int, folder: str, home: str, extra: str) -> str:
    """Return sshd's configuration; `folder` and `home` as the machine sees them."""
    return CONFIG.format(
        address=address,
        port=port,
        folder=f'"{folder}"',
        home=f'"{home}"',
        mark=f"{processes.MARK}={machine_id}",
        extra=extra,
    )


def session(folder: str, sftp: str) -> str:
    """Return the script that every login runs."""
    return SESSION.format(folder=shlex.quote(folder), sftp=shlex.quote(sftp))


def console_text(seed: Seed, *, guarded: bool) -> str:
    """Return what cloud-init would print at the first boot, host keys included."""
    lines = [
        "cloud-init: ci-info: machine of kind `process`",
        *(["cloud-init: the guard runs as an ordinary user"] if guarded else []),
        *(f"cloud-init: no root here, left undone: {part}" for part in seed.undone),
        "-----BEGIN SSH HOST KEY FINGERPRINTS-----",
        f"256 {keys.fingerprint(seed.host_public)} root@sandbox (ED25519)",
        "-----END SSH HOST KEY FINGERPRINTS-----",
        "-----BEGIN SSH HOST KEY KEYS-----",
        seed.host_public,
        "-----END SSH HOST KEY KEYS-----",
    ]
    return "".join(f"{line}\r\n" for line in lines)


def newer_options() -> str:
    """Return the lines of configuration that only this computer's version of sshd knows."""
    # From 9.8 on sshd locks an address out for a while after failures; every client here
    # has the same one. Older servers refuse to start with an option they do not know.
    told = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    match = re.match(r"OpenSSH_(\d+)\.(\d+)", told)
    return "PerSourcePenalties no" if match and tuple(map(int, match.groups())) >= (9, 8) else ""
