"""The guard inside a `process` machine, and the switch with which it powers the machine off.

On a real machine cloud-init writes the guard and systemd runs it as root. Here it runs
beside sshd as the machine's ordinary user, from files that the machine cannot change,
with the paths of its configuration turned to where things are in such a machine.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import select
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cloudtrain.sandbox.isolation import Person

PROGRAM = "/usr/local/lib/cloudtrain/guard.py"
CONFIG = "/etc/cloudtrain/guard.json"
STATE = ".local/state/cloudtrain-guard"
"""Where the guard keeps its state, below the machine's HOME."""

_HOME = re.compile(r"^(?:/home/[^/]+|/root|~)(?=/|$)")
_RUN = """\
#!/bin/sh
# Restart=always, as the unit says on a machine with systemd.
. {folder}/environment
mkdir -p "$HOME/{state}"
while :; do
  python3 -I {folder}/guard.py {folder}/guard.json >> "$HOME/{state}/log" 2>&1
  sleep 2
done
"""


@dataclass(frozen=True, slots=True)
class GuardFiles:
    """The two files that the user data of a launch carries."""

    program: str = field(repr=False)
    config: Mapping[str, Any]

    def turned(
        self, home: str, folder: str, imds: str, shortened: Mapping[str, float], booted: float
    ) -> dict[str, Any]:
        """Return the configuration with this machine's paths, and `shortened` in place of what is given.

        `booted` is the host's uptime when the machine began, 0 where the machine has its own.
        """
        contact = [_HOME.sub(home, str(pattern)) for pattern in self.config.get("contact", [])]
        changes: dict[str, Any] = {
            "contact": list(dict.fromkeys(contact)),
            "state": f"{home}/{STATE}",
            "imds": imds,
            "poweroff": ["/bin/sh", f"{folder}/poweroff"],
            "booted": booted,
        }
        return {**self.config, **changes, **shortened}


def guard_of(user_data: str) -> GuardFiles | None:
    """Return the guard that a cloud-config writes; None when it writes none, or nonsense."""
    if not user_data.startswith("#cloud-config") or PROGRAM not in user_data:
        return None
    import yaml

    try:
        parsed: object = yaml.safe_load(user_data)
        config = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
        entries = cast("list[dict[str, Any]]", config.get("write_files") or [])
        files = {str(entry.get("path")): _content(entry) for entry in entries}
        return GuardFiles(files[PROGRAM], json.loads(files[CONFIG]))
    except (yaml.YAMLError, KeyError, ValueError, OSError, EOFError):
        return None


def place(files: GuardFiles, folder: Path, seen: str) -> None:
    """Write the program and what runs it; `seen` is the folder as the machine sees it."""
    _replace(folder / "guard.py", files.program)
    _replace(folder / "guard", _RUN.format(folder=shlex.quote(seen), state=STATE))
    _replace(folder / "poweroff", f"echo off > {shlex.quote(seen)}/power\n")


def configure(
    files: GuardFiles,
    folder: Path,
    seen: str,
    home: str,
    imds: str,
    *,
    shortened: Mapping[str, float],
    booted: float,
) -> None:
    """Write the configuration of a boot."""
    turned = files.turned(home, seen, imds, shortened, booted)
    _replace(folder / "guard.json", json.dumps(turned))


def uptime() -> float:
    """Return the seconds since this computer was booted, which is what a guard counts from."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Switch:
    """A pipe on which a machine says that it powers off; watched for the machine's whole life."""

    def __init__(self, path: Path, who: Person, off: Callable[[], None]) -> None:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        who.own(path, 0o600)
        self._off = off
        # Held open for reading and writing: no writer ever waits, and no end is ever read.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._told, self._tell = os.pipe()
        threading.Thread(target=self._watch, daemon=True, name=f"power {path.parent.name}").start()

    def close(self) -> None:
        """Watch no longer. May be called twice."""
        tell, self._tell = self._tell, -1
        if tell >= 0:
            os.close(tell)

    def _watch(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self._pipe, self._told], [], [])
                if self._told in ready:
                    return
                os.read(self._pipe, 4096)
                self._off()
        finally:
            os.close(self._pipe)
            os.close(self._told)


def _content(entry: Mapping[str, Any]) -> str:
    encoding, content = str(entry.get("encoding", "")), entry.get("content", "")
    data = content if isinstance(content, bytes) else str(content).encode()
    if encoding.endswith(("b64", "base64")):
        data = base64.b64decode(data)
    if encoding.startswith("gz"):
        data = gzip.decompress(data)
    return data.decode()


def _replace(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)
