"""The `ssh` provider: hosts that exist without us, are borrowed for a run, and stay.

launch is check and take, terminate is end what is ours there; the machine itself is
never started, stopped or ended. What a cloud keeps as tags lies in the run folder here,
and in a small marker on the host.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudtrain.errors import (
    AuthenticationFailed,
    CapacityError,
    CloudError,
    CloudtrainError,
    ConnectError,
    GoneError,
    HostKeyMismatch,
    LostAnswerError,
    RefusedError,
    UsageError,
)
from cloudtrain.models.account import Sweep
from cloudtrain.models.config import Config, Host
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Found, Image, LaunchSpec, Observation, Offer, Survey
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import HOST_KEY, ID, OWNER, RUN
from cloudtrain.providers.base import Access, AccessSpec, Identity, Launches
from cloudtrain.providers.ssh import ledger, presence
from cloudtrain.providers.ssh.account import NoAccount
from cloudtrain.providers.ssh.ledger import Taken
from cloudtrain.providers.ssh.trust import Confirm, trusted_key
from cloudtrain.providers.ssh.way import by_password, find_way, label_of
from cloudtrain.ssh import keys
from cloudtrain.ssh.remote import Remote, connect

REGION = "your hosts"
AS_IT_IS = Image(id="", name="as it is", user="", root_device="", floor_gb=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """How a run leaves its host. `give_up` lets a host go that cannot be reached any more."""

    remove: bool = False
    give_up: bool = False


class SshProvider(NoAccount):
    """Hosts of the user's own, tried in the order in which they are listed."""

    name = "ssh"
    ssh_port = 22
    ssh_user = None

    def __init__(
        self, hosts: tuple[Host, ...], *, confirm: Confirm | None = None, leaving: Leaving | None = None
    ) -> None:
        self._hosts = {label_of(host): host for host in hosts}
        self._confirm = confirm
        self._leaving = leaving or Leaving()

    def identity(self) -> Identity:
        """Name the local user and computer; nobody else would vouch for more."""
        return Identity(_owner(), REGION, "")

    def survey(self, config: Config) -> Survey:
        """Offer every listed host; nothing is asked of them before the plan has its yes."""
        if not self._hosts:
            raise UsageError("`hosts:` lists no machine", hint="write `hosts: [{address: …}]`")
        offers = tuple(_offer(label, host, config) for label, host in self._hosts.items())
        return Survey(REGION, offers, AS_IT_IS, ingress=None)

    def observe(self, run: RunRef) -> Observation:
        """Return the hosts that the run has taken, by what this computer wrote down."""
        newest = {row.id: row for row in ledger.rows(run.slug)}
        return Observation(tuple(row.machine() for row in newest.values()), None, None)

    def everything(self, owner: str) -> tuple[Found, ...]:
        """Ask every listed host for its markers; one that does not answer is named as such."""
        with ThreadPoolExecutor(8, thread_name_prefix="hosts") as pool:
            asked = [pool.submit(self._runs_on, label, host, owner) for label, host in self._hosts.items()]
            return tuple(found for one in asked for found in one.result())

    def sweep(self, owner: str, regions: tuple[str, ...] | None = None) -> Sweep:  # noqa: ARG002
        """Return what our runs have on the listed hosts; they have no regions."""
        return Sweep((), self.everything(owner))

    def prepare_access(self, spec: AccessSpec) -> Access:
        """Change nothing: the host admits us already, or it does not."""
        del spec
        return Access("", "")

    def launch(self, spec: LaunchSpec | None, token: str, launches: Launches) -> Machine:
        """Check and take the host that `spec.type` names.

        A host that does not answer is a `CapacityError`. Raises `HostKeyMismatch` before
        any authentication, `AuthenticationFailed`, and `RefusedError` for a host key
        that nobody confirmed; then nothing was changed there.
        """
        row = _of_token(launches, token)
        if row is not None:
            if row.released:
                raise GoneError(f"{row.label} was let go")
            return self._mark(row).machine()
        if spec is None:
            raise GoneError("no host was taken for that attempt")
        host = self._hosts.get(spec.type)
        if host is None:
            raise CapacityError(f"{spec.type} is not listed in `hosts:` any more", code="not listed")
        run = RunRef(spec.tags[RUN], spec.tags[ID], spec.tags[OWNER])
        launches.store(token, json.dumps({"host": asdict(host), "slug": run.slug}).encode())
        try:
            row = self._take(host, run, token)
        except (HostKeyMismatch, AuthenticationFailed):
            raise
        except ConnectError as error:
            raise CapacityError(error.message, hint=error.hint, code=error.message) from error
        return row.machine()

    def tag(self, machine_id: str, tags: dict[str, str]) -> None:
        """Keep tags beside the host's row in the run folder."""
        row = _require(machine_id)
        ledger.put(replace(row, tags={**row.tags, **tags}))

    def tags_of(self, machine_id: str) -> dict[str, str]:
        """Return what is kept of a host."""
        row = _require(machine_id)
        return {HOST_KEY: row.host_keys[0], **row.tags}

    def push_key(self, machine_id: str, zone: str, user: str, public_key: str) -> None:
        """Refuse: no authority but the host's owner can let a key in."""
        del zone, user, public_key
        raise CloudError(
            f"no key can be pushed to {machine_id}", hint="use `ssh-copy-id` from where you get in"
        )

    def repair_ingress(self, run: RunRef, address: str) -> bool:
        """Change nothing: who reaches a host of yours is its network's affair."""
        del run, address
        return False

    def caller_address(self, config: Config) -> str:
        """Raise `CloudError`: nobody needs to know it here."""
        del config
        raise CloudError("a host of your own has no rule with your address in it")

    def start(self, machine_id: str) -> None:
        """Do nothing for a host that is taken; one that is not cannot be started from here."""
        _require(machine_id)

    def stop(self, machine_id: str) -> None:
        """Refuse: others may use it, and nothing here could start it again."""
        raise RefusedError(
            f"{machine_id} is a machine of your own: cloudtrain never stops one",
            hint="`cloudtrain train --stop` ends the training; `cloudtrain down` leaves the machine",
        )

    def wait_running(self, machine_id: str, timeout_s: float) -> Machine:
        """Return the host; it was there before us."""
        del timeout_s
        row = ledger.find(machine_id)
        if row is None or row.released:
            raise CloudError(f"{machine_id} was not taken", hint="`cloudtrain up` takes a host")
        return self._mark(row).machine()

    def terminate(
        self,
        machine_ids: tuple[str, ...],
        timeout_s: float,
        *,
        launched: Mapping[str, datetime] | None = None,
    ) -> None:
        """End everything of the run on its hosts and leave them as they are otherwise.

        Every host is tried before the first failure is raised.
        """
        del timeout_s, launched
        failures: list[CloudtrainError] = []
        for machine_id in machine_ids:
            row = ledger.find(machine_id)
            if row is not None and not row.released:
                try:
                    self._leave(row)
                except CloudtrainError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def release_access(self, run: RunRef) -> None:
        """Do nothing: there was none to prepare."""
        del run

    def _take(self, host: Host, run: RunRef, token: str) -> Taken:
        """Settle trust and the way in; nothing on the host is changed yet."""
        way, label = find_way(host), label_of(host)
        known = (*way.known, *_pinned_before(label))
        with tempfile.TemporaryDirectory(prefix="cloudtrain-") as folder:
            pins = Path(folder) / "known_hosts"
            target = ledger.target_of(way.address, way.login, pins, run.slug)
            key = trusted_key(target, given=host.fingerprint, known=known, label=label, confirm=self._confirm)
            keys.pin(pins, run.slug, (key,))
            login = way.login
            if not login.password and by_password(target, key):
                login = replace(login, key=None, password=True)
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

    @staticmethod
    def _mark(row: Taken) -> Taken:
        """Write the marker on a host that was taken and may not know it yet."""
        if row.marked:
            return row
        with connect(row.target()) as remote:
            return _marked(row, remote)

    def _leave(self, row: Taken) -> None:
        try:
            with connect(row.target()) as remote:
                presence.leave(remote, row.slug, remove=self._leaving.remove)
        except ConnectError as error:
            if not self._leaving.give_up:
                raise CloudError(
                    f"{row.label} cannot be left tidily: {error.message}",
                    hint="try again when it can be reached; `cloudtrain down --discard` forgets it as it is",
                ) from error
        ledger.release(row)

    def _runs_on(self, label: str, host: Host, owner: str) -> tuple[Found, ...]:
        try:
            with self._known(label, host) as remote:
                found = presence.markers(remote)
        except CloudtrainError as error:
            return (Found("instance", label, "?", f"not asked: {error.message}", mine=False),)
        return tuple(
            Found("instance", f"{label}/{one.slug}", one.slug, f"taken by {one.by}", one.owner == owner)
            for one in found
        )

    def _known(self, label: str, host: Host) -> Remote:
        """Connect to a host whose key is known, without asking anybody anything."""
        way = find_way(host)
        known = (*way.known, *_pinned_before(label))
        with tempfile.TemporaryDirectory(prefix="cloudtrain-") as folder:
            target = ledger.target_of(way.address, way.login, Path(folder) / "known_hosts", "audit")
            key = trusted_key(target, given=host.fingerprint, known=known, label=label, confirm=None)
            keys.pin(target.known_hosts, "audit", (key,))
            return connect(target)


def _offer(label: str, host: Host, config: Config) -> Offer:
    del config
    return Offer(
        type=label,
        market="on-demand",
        zones=(),
        vcpus=0,
        memory_mib=0,
        gpu_name="",
        gpu_count=0,
        gpu_memory_mib=0,
        price_hour=host.price_hour,
        price_source="cloudtrain.yaml" if host.price_hour else "",
    )


def _marked(row: Taken, remote: Remote) -> Taken:
    """Write the marker, once. Raises `LostAnswerError` when the line breaks in it."""
    try:
        presence.mark(remote, presence.Marker(row.slug, _owner(), _who(), row.taken))
    except ConnectError as error:
        raise LostAnswerError(f"{row.label}: {error.message}", hint="run the same command again") from error
    except CloudError:
        ledger.release(row)
        raise
    return ledger.put(replace(row, marked=True))


def _of_token(launches: Launches, token: str) -> Taken | None:
    """Return the row that a token made, if it came so far that anything may be on the host."""
    stored = launches.load(token)
    if stored is None:
        return None
    request: Any = json.loads(stored)
    return next((row for row in ledger.rows(str(request["slug"])) if row.token == token), None)


def _require(machine_id: str) -> Taken:
    row = ledger.find(machine_id)
    if row is None or row.released:
        raise GoneError(f"{machine_id} is not taken", hint="`cloudtrain up` takes a host")
    return row


def _pinned_before(label: str) -> tuple[str, ...]:
    """Return the keys that any run of this computer has pinned for a host: confirmed once is enough."""
    from cloudtrain.journal.folder import all_runs

    found: list[str] = []
    for folder in all_runs():
        try:
            found += [
                key for row in ledger.rows(folder.path.name) if row.label == label for key in row.host_keys
            ]
        except UsageError:
            continue
    return tuple(dict.fromkeys(found))


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _owner() -> str:
    return hashlib.sha256(_who().encode()).hexdigest()[:12]
