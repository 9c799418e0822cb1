"""Taking a host and leaving it: trust first, then the way in, then our marker, and back.

In this order nothing is sent to a host that is not trusted, and nothing is changed on one
before this computer has written down that it is about to.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cloudtrain.errors import CloudError, ConnectError, LostAnswerError, UsageError
from cloudtrain.journal.folder import all_runs
from cloudtrain.models.config import Host
from cloudtrain.models.run import RunRef
from cloudtrain.providers.ssh import ledger, presence
from cloudtrain.providers.ssh.ledger import Taken
from cloudtrain.providers.ssh.trust import Confirm, trusted_key
from cloudtrain.providers.ssh.way import find_way, fitting, label_of
from cloudtrain.ssh import keys
from cloudtrain.ssh.remote import Remote, connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """How a run leaves its host. `give_up` lets a host go that cannot be reached any more."""

    remove: bool = False
    give_up: bool = False


def take(host: Host, run: RunRef, token: str, confirm: Confirm | None) -> Taken:
    """Settle trust and the way in; nothing on the host is changed yet."""
    way, label = find_way(host), label_of(host)
    known = (*way.known, *_pinned_before(label))
    with tempfile.TemporaryDirectory(prefix="cloudtrain-") as folder:
        pins = Path(folder) / "known_hosts"
        target = ledger.target_of(way.address, way.login, pins, run.slug)
        key = trusted_key(target, given=host.fingerprint, known=known, label=label, confirm=confirm)
        keys.pin(pins, run.slug, (key,))
        login = fitting(way, target, key)
    row = Taken(
        label=label,
        slug=run.slug,
        token=token,
        address=way.address,
        login=login,
        host_keys=(key,),
        taken=datetime.now(UTC).isoformat(),
        price_hour=host.price_hour,
    )
    with connect(row.target()) as remote:  # an error here leaves no trace
        ledger.put(row)
        keys.pin(row.folder.known_hosts, run.slug, row.host_keys)
        return _marked(row, remote)


def mark(row: Taken) -> Taken:
    """Write the marker on a host that was taken and may not know it yet."""
    if row.marked:
        return row
    with connect(row.target()) as remote:
        return _marked(row, remote)


def leave(row: Taken, leaving: Leaving) -> None:
    """End what a run has on its host. Raises `CloudError` when that cannot be done, unless given up."""
    try:
        with connect(row.target()) as remote:
            presence.leave(remote, row.slug, remove=leaving.remove)
    except ConnectError as error:
        if not leaving.give_up:
            raise CloudError(
                f"{row.label} cannot be left tidily: {error.message}",
                hint="try again when it can be reached; `cloudtrain down --discard` forgets it as it is",
            ) from error
    ledger.release(row)


def reach(label: str, host: Host) -> Remote:
    """Connect to a host whose key is known, without asking anybody anything."""
    way = find_way(host)
    known = (*way.known, *_pinned_before(label))
    with tempfile.TemporaryDirectory(prefix="cloudtrain-") as folder:
        target = ledger.target_of(way.address, way.login, Path(folder) / "known_hosts", "audit")
        key = trusted_key(target, given=host.fingerprint, known=known, label=label, confirm=None)
        keys.pin(target.known_hosts, "audit", (key,))
        login = fitting(way, target, key, ask=False)
        return connect(ledger.target_of(way.address, login, target.known_hosts, "audit"))


def _marked(row: Taken, remote: Remote) -> Taken:
    """Write the marker, once. Raises `LostAnswerError` when the line breaks in it."""
    try:
        presence.mark(remote, presence.Marker(row.slug, owner(), who(), row.taken))
    except ConnectError as error:
        raise LostAnswerError(f"{row.label}: {error.message}", hint="run the same command again") from error
    except CloudError:
        ledger.release(row)
        raise
    return ledger.put(replace(row, marked=True))


def _pinned_before(label: str) -> tuple[str, ...]:
    """Return the keys that any run of this computer has pinned for a host: confirmed once is enough."""
    found: list[str] = []
    for folder in all_runs():
        try:
            found += [
                key for row in ledger.rows(folder.path.name) if row.label == label for key in row.host_keys
            ]
        except UsageError:
            continue
    return tuple(dict.fromkeys(found))


def who() -> str:
    """Return who asks, as the local computer knows them."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def owner() -> str:
    """Return a digest of `who`: 12 hex digits, like every provider's."""
    return hashlib.sha256(who().encode()).hexdigest()[:12]
