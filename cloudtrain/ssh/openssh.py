"""Argument lists for OpenSSH's programs, with our key and our pinned host key only."""

from __future__ import annotations

import shlex
from pathlib import Path

from cloudtrain.models.machine import SshTarget


def options(target: SshTarget) -> tuple[str, ...]:
    """Return the `-o` options that make `ssh` trust exactly the pinned key.

    No user or system configuration is read: a `Host *` block in it could weaken any
    of these. `BatchMode` forbids every prompt, so nothing can hang on a question.
    """
    settings = [
        f"UserKnownHostsFile={_quoted(target.known_hosts)}",
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
        settings += ["IdentitiesOnly=yes", f"IdentityFile={_quoted(target.key)}", "IdentityAgent=none"]
    args = ["-F", "none", "-p", str(target.port)]
    for setting in settings:
        args += ["-o", setting]
    through = hop(target)
    if through is not None:
        args += ["-o", f"ProxyCommand=exec {shlex.join(through).replace('%', '%%')}"]
    return tuple(args)


def hop(target: SshTarget) -> list[str] | None:
    """Return the command that reaches a machine behind another host, None when it needs none.

    That hop is made by the user's own configuration and known hosts, as they set it up;
    but a host they do not know yet is refused, and nothing can prompt.
    """
    if target.proxy_jump is None:
        return None
    args = ["ssh", "-W", f"[{target.address}]:{target.port}"]
    for setting in (
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
    ):
        args += ["-o", setting]
    return [*args, "--", target.proxy_jump]


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


def _quoted(path: Path) -> str:
    """Quote a path for an option that splits at spaces and expands `%`."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
