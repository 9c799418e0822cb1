"""Argument lists for OpenSSH's programs, with our key and our pinned host key only."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from cloudtrain.models.machine import SshTarget

_BY_PASSWORD = [
    "PreferredAuthentications=password,keyboard-interactive",
    "PubkeyAuthentication=no",
    "NumberOfPasswordPrompts=1",
]


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
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
        "ConnectTimeout=15",
        "LogLevel=ERROR",
    ]
    # BatchMode would forbid asking our helper as well; it is the only one who can be asked.
    settings += _BY_PASSWORD if target.password else ["BatchMode=yes", "PasswordAuthentication=no"]
    if target.key is not None:
        settings += ["IdentitiesOnly=yes", f"IdentityFile={_quoted(target.key)}", "IdentityAgent=none"]
    args = ["-F", "none", "-p", str(target.port)]
    for setting in settings:
        args += ["-o", setting]
    through = hop(target)
    if through is not None:  # OpenSSH puts an `exec` before it
        args += ["-o", f"ProxyCommand={shlex.join(through).replace('%', '%%')}"]
    return tuple(args)


def hop(target: SshTarget) -> list[str] | None:
    """Return the command that reaches a machine behind another host, None when it needs none.

    That hop is made by the user's own configuration and known hosts, as they set it up;
    but a host they do not know yet is refused, and nothing can prompt.
    """
    if target.proxy_command is not None:
        return ["/bin/sh", "-c", f"exec {_expanded(target.proxy_command, target)}"]
    if target.proxy_jump is None:
        return None
    *before, last = target.proxy_jump.split(",")
    args = ["ssh", "-W", f"[{target.address}]:{target.port}"]
    if before:
        args += ["-J", ",".join(before)]
    for setting in (
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
    ):
        args += ["-o", setting]
    host, port = _jump_host(last.strip())
    return [*args, *(("-p", port) if port else ()), "--", host]


def _jump_host(text: str) -> tuple[str, str]:
    """Split ProxyJump's `user@host:port`, which is not how `ssh` itself takes a port."""
    if text.startswith("ssh://"):
        return text, ""
    found = re.fullmatch(r"((?:[^@]*@)?)(\[[^]]+\]|[^:]+):(\d+)", text)
    return (f"{found[1]}{found[2].strip('[]')}", found[3]) if found else (text, "")


def _expanded(command: str, target: SshTarget) -> str:
    words = {"h": target.address, "n": target.alias, "p": str(target.port), "r": target.user, "%": "%"}
    return re.sub(r"%([hnpr%])", lambda found: words[found[1]], command)


def environment(target: SshTarget) -> dict[str, str]:
    """Return the environment for `ssh` and for what starts it.

    A password reaches OpenSSH by its own way for programs, SSH_ASKPASS. The helper is
    a file without a secret in it; the password is in the child's environment, which only
    its user and root can read, never in an argument list and never on a disk. Another
    question than that for this machine's password gets no answer: not a host on the way,
    which inherits the environment, nor the prompt to trust an unknown key.
    """
    environ = dict(os.environ)
    if not target.password:
        return environ
    from cloudtrain.ssh.password import password_of

    helper = target.known_hosts.parent / "askpass"
    _write_helper(helper)
    return environ | {
        "SSH_ASKPASS": str(helper),
        "SSH_ASKPASS_REQUIRE": "force",
        "DISPLAY": environ.get("DISPLAY", ":0"),
        "CLOUDTRAIN_ASKPASS_FOR": f"{target.user}@{target.alias}",
        "CLOUDTRAIN_ASKPASS": password_of(target),
    }


ASKPASS = """\
#!/bin/sh
# Answers OpenSSH's question for one password; it holds none itself.
case "$1" in
  *"$CLOUDTRAIN_ASKPASS_FOR"*[Pp]assword*) printf '%s\\n' "$CLOUDTRAIN_ASKPASS" ;;
  *) exit 1 ;;
esac
"""


def _write_helper(path: Path) -> None:
    if path.exists() and path.read_text() == ASKPASS:
        return
    part = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
    with os.fdopen(fd, "w") as file:
        file.write(ASKPASS)
    part.replace(path)


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
