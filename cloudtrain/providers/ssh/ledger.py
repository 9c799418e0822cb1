"""What this computer knows of the hosts that a run has taken: `hosts.json` in its folder.

A host has no tags that a cloud would keep for us, so this file is what `observe` reads.
A row is on the disk before anything on the host is changed, and goes by being marked,
never by being deleted.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudtrain.errors import UsageError
from cloudtrain.journal.folder import RunFolder, runs_dir, write_durably
from cloudtrain.models.machine import Login, Machine, SshTarget
from cloudtrain.ssh import keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One host that a run has taken. `marked` says that the host itself knows it."""

    label: str
    slug: str
    token: str
    address: str
    login: Login
    host_keys: tuple[str, ...]
    taken: str
    price_hour: float | None = None
    marked: bool = False
    released: str | None = None
    tags: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def id(self) -> str:
        """The host as it is listed, and the run that has it."""
        return f"{self.label}/{self.slug}"

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(runs_dir() / self.slug)

    def machine(self) -> Machine:
        """Return it as every provider shows a machine."""
        return Machine(
            id=self.id,
            state="terminated" if self.released else "running",
            type="own host",
            zone="",
            market="on-demand",
            address=self.address,
            launched=datetime.fromisoformat(self.taken),
            price_hour=self.price_hour,
            login=self.login,
        )

    def target(self) -> SshTarget:
        """Return the way to it, its host keys pinned in a file of its own."""
        digest = hashlib.sha256(self.label.encode()).hexdigest()[:12]
        known_hosts = self.folder.path / "hosts" / digest
        if keys.pinned(known_hosts, self.slug) != self.host_keys:
            known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
            keys.pin(known_hosts, self.slug, self.host_keys)
        return target_of(self.address, self.login, known_hosts, self.slug)


def target_of(address: str, login: Login, known_hosts: Path, alias: str) -> SshTarget:
    """Return the way to a host."""
    return SshTarget(
        address=address,
        port=login.port,
        user=login.user,
        key=Path(login.key) if login.key else None,
        known_hosts=known_hosts,
        alias=alias,
        proxy_jump=login.proxy_jump,
        proxy_command=login.proxy_command,
        password=login.password,
    )


def rows(slug: str) -> tuple[Taken, ...]:
    """Return the hosts that a run has taken, oldest first. Raises `UsageError` when damaged."""
    path = _path(slug)
    if not path.exists():
        return ()
    try:
        return tuple(_row(data) for data in json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"`{path}` is damaged: {error}") from error


def find(machine_id: str) -> Taken | None:
    """Return the newest row of a machine id, or None."""
    slug = machine_id.rpartition("/")[2]
    return next((row for row in reversed(rows(slug)) if row.id == machine_id), None)


def put(row: Taken) -> Taken:
    """Write a row, durably: a new one, or in the place of the one with the same token."""
    kept = [row if old.token == row.token else old for old in rows(row.slug)]
    if row not in kept:
        kept.append(row)
    write_durably(_path(row.slug), json.dumps([asdict(one) for one in kept], indent=1).encode())
    return row


def release(row: Taken) -> Taken:
    """Mark a row as let go."""
    return put(replace(row, released=datetime.now(UTC).isoformat()))


def _path(slug: str) -> Path:
    return runs_dir() / slug / "hosts.json"


def _row(data: dict[str, Any]) -> Taken:
    given: dict[str, Any] = {**data, "login": Login(**data["login"]), "host_keys": tuple(data["host_keys"])}
    return Taken(**given)
