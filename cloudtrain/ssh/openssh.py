"""Argument lists for OpenSSH's programs, with our key and our pinned host key only."""

from __future__ import annotations

import shlex

from cloudtrain.models.machine import SshTarget


def options(target: SshTarget) -> tuple[str, ...]:
    """Return the `-o` options that make `ssh` trust exactly the pinned key.

    No user or system configuration is read: a `Host *` block in it could weaken any
    of these. `BatchMode` forbids every prompt, so nothing can hang on a question.
    """
    settings = [
        f'UserKnownHostsFile="{target.known_hosts}"',
        "GlobalKnownHostsFile=/dev/null",
        f"HostKeyAlias={target.alias}",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "CheckHostIP=no",
        "BatchMode=yes",
        "PasswordAuthentication=no",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
        "ConnectTimeout=15",
        "LogLevel=ERROR",
    ]
    if target.key is not None:
        settings += ["IdentitiesOnly=yes", f'IdentityFile="{target.key}"', "IdentityAgent=none"]
    args = ["-F", "none", "-p", str(target.port)]
    for setting in settings:
        args += ["-o", setting]
    if target.proxy_jump:
        args += ["-J", target.proxy_jump]
    return tuple(args)


def ssh(target: SshTarget, *command: str, tty: bool = False) -> list[str]:
    """Return the argument list of one `ssh`; `command` words are quoted for the far shell."""
    args = ["ssh", *options(target)]
    if tty:
        args.append("-t")
    args += ["-l", target.user, target.address]
    if command:
        args += ["--", *command]
    return args


def rsync_shell(target: SshTarget) -> str:
    """Return the value of rsync's `-e`."""
    return shlex.join(["ssh", *options(target), "-l", target.user])
