"""What the user's own OpenSSH configuration says about a host: `ssh -G`, read once.

Names, ports, keys and the way there are the user's to set up, and `ssh -G` is the one
reader of that file which is right about `Match`, `Include` and patterns. What would
weaken trust (`StrictHostKeyChecking no`, say) is not read: only what is named here is.
"""

from __future__ import annotations

import getpass
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where a host is and how the user gets there. `known_as` is its name in known_hosts.

    `identities` are the key files that the configuration names for it: none where it names none.
    `only_these` says that the agent's and the usual keys are not to be offered beside them.
    """

    address: str
    port: int
    user: str
    identities: tuple[Path, ...] = ()
    only_these: bool = False
    proxy_jump: str | None = None
    proxy_command: str | None = None
    known_as: str = ""
    known_hosts: tuple[Path, ...] = ()


def resolve(name: str, *, user: str | None = None, port: int | None = None) -> Resolved:
    """Return what `ssh` would do for `name`; `user` and `port` override its configuration.

    Without an `ssh` here it is the name itself, port 22 and the local user. Raises
    `UsageError` when `ssh` cannot read the user's configuration, or the name.
    """
    given = ["-p", str(port)] if port else []
    given += ["-l", user] if user else []
    try:
        done = _ask(*given, "--", name)
    except FileNotFoundError:
        return Resolved(address=name, port=port or 22, user=user or getpass.getuser())
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(
            f"`ssh -G {name}` cannot tell where that is: {said}", hint="correct `hosts`, or ~/.ssh/config"
        )
    # Where no file is named, `ssh -G` lists the usual ones: which those are is its version's to say.
    return parse(done.stdout, _ask("-F", "none", "--", name).stdout)


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["ssh", "-G", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def parse(text: str, usual: str = "") -> Resolved:
    """Read the output of `ssh -G`; `usual` is what it says without any configuration."""
    rows = [line.partition(" ") for line in text.splitlines()]
    said = {key: value for key, _, value in reversed(rows)}
    named = _identities(text)
    address, port = said.get("hostname", ""), int(said.get("port", "22"))
    name = _said(said, "hostkeyalias") or address
    files = " ".join(said.get(key, "") for key in ("userknownhostsfile", "globalknownhostsfile")).split()
    return Resolved(
        address=address,
        port=port,
        user=said.get("user", ""),
        identities=named if named != _identities(usual) else (),
        only_these=said.get("identitiesonly") == "yes",
        proxy_jump=_said(said, "proxyjump"),
        proxy_command=_said(said, "proxycommand"),
        # OpenSSH writes the port beside the address, never beside an alias.
        known_as=name if port == 22 or _said(said, "hostkeyalias") else f"[{name}]:{port}",
        known_hosts=tuple(_path(file) for file in files if file != "none"),
    )


def usable_identities(found: Resolved) -> tuple[Path, ...]:
    """Return those of the host's named private keys that open without a passphrase.

    A key with one is the agent's to use.
    """
    return tuple(path for path in found.identities if path.is_file() and _opens(path))


def known_keys(found: Resolved) -> tuple[str, ...]:
    """Return the host keys, `kind base64`, that the user's known_hosts has for it."""
    keys: list[str] = []
    for file in found.known_hosts:
        if file.is_file():
            command = ["ssh-keygen", "-F", found.known_as, "-f", str(file)]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            rows = [line.split() for line in said.splitlines() if not line.startswith(("#", "@"))]
            keys += [f"{row[1]} {row[2]}" for row in rows if len(row) >= 3]
    return tuple(dict.fromkeys(keys))


def _identities(text: str) -> tuple[Path, ...]:
    rows = (line.partition(" ") for line in text.splitlines())
    return tuple(_path(value) for key, _, value in rows if key == "identityfile" and value != "none")


def _opens(path: Path) -> bool:
    # An empty passphrase, so that it fails where another would be asked for.
    command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def _said(said: dict[str, str], key: str) -> str | None:
    value = said.get(key)
    return None if value in (None, "", "none") else value


def _path(text: str) -> Path:
    return Path(text.strip().strip('"')).expanduser()
