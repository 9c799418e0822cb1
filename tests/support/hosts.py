"""A host of somebody's own: the real sshd of `Sshd`, and a project that trains on it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cloudtrain.ssh.keys import fingerprint
from tests.support.road import TRAIN, Road
from tests.support.sshd import Sshd

CONFIG = """\
name: {name}
provider: ssh
hosts: [{host}]
environment: {{manager: existing, python: /usr/bin/python3, torch: none}}
train:
  kind: script
  command: python3 train.py
  outputs: ["out/*.pt"]
"""


def listed(sshd: Sshd, **more: object) -> str:
    """A line of `hosts:` for a server, its fingerprint given."""
    values: dict[str, object] = {
        "address": "127.0.0.1",
        "port": sshd.port,
        "user": sshd.target.user,
        "key": sshd.target.key,
        "fingerprint": fingerprint(sshd.host_key.public),
        **more,
    }
    return "{" + ", ".join(f'{key}: "{value}"' for key, value in values.items() if value is not None) + "}"


@dataclass
class HostRoad(Road):
    """A project whose machine is a host of one's own."""

    host: str = ""
    name: str = "own"
    config: str = CONFIG
    ssh_config: Path | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.write()
        (self.project / "train.py").write_text(TRAIN)

    def write(self) -> None:
        """Write cloudtrain.yaml anew."""
        text = self.config.format(name=self.name, host=self.host)
        (self.project / "cloudtrain.yaml").write_text(text)

    def use_ssh_config(self, text: str) -> None:
        """Have every `ssh` of this project read another file than ~/.ssh/config.

        OpenSSH finds that by the password database, whatever HOME says.
        """
        folder = self.root / "bin"
        folder.mkdir(exist_ok=True)
        (self.root / "ssh_config").write_text(text)
        program = folder / "ssh"
        program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F "{self.root}/ssh_config" "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.env["PATH"] = f"{folder}:{os.environ['PATH']}"
