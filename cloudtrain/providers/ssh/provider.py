"""The `ssh` provider: hosts that exist without us, are borrowed for a run, and stay.

launch is check and take, terminate is end what is ours there; the machine itself is
never started, stopped or ended. What a cloud keeps as tags lies in the run folder here,
and in a small marker on the host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import Any

from cloudtrain.errors import (
    AuthenticationFailed,
    CapacityError,
    CloudError,
    CloudtrainError,
    ConnectError,
    GoneError,
    HostKeyMismatch,
    RefusedError,
    UsageError,
)
from cloudtrain.models.account import Check, Probe, Sweep
from cloudtrain.models.config import Config, Host
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import HOURS_A_MONTH, Found, Image, LaunchSpec, Observation, Survey
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import HOST_KEY, ID, OWNER, RUN
from cloudtrain.providers.base import Access, AccessSpec, Identity, Launches
from cloudtrain.providers.ssh import ledger, presence, taking
from cloudtrain.providers.ssh.account import FREE, REGION, NoAccount, offer_of
from cloudtrain.providers.ssh.ledger import Taken
from cloudtrain.providers.ssh.taking import Leaving
from cloudtrain.providers.ssh.trust import Confirm
from cloudtrain.providers.ssh.way import label_of

AS_IT_IS = Image(id="", name="as it is", user="", root_device="", floor_gb=0)


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
        return Identity(taking.owner(), REGION, "")

    def survey(self, config: Config) -> Survey:
        """Offer every listed host; nothing is asked of them before the plan has its yes."""
        del config
        if not self._hosts:
            raise UsageError("`hosts:` lists no machine", hint="write `hosts: [{address: …}]`")
        offers = tuple(offer_of(label, host) for label, host in self._hosts.items())
        return Survey(REGION, offers, AS_IT_IS, ingress=None, rates=FREE)

    def observe(self, run: RunRef) -> Observation:
        """Return the hosts that the run has taken, by what this computer wrote down."""
        newest = {row.id: row for row in ledger.rows(run.slug)}
        return Observation(tuple(row.machine() for row in newest.values()), None, None)

    def everything(self, owner: str) -> tuple[Found, ...]:
        """Ask every listed host for its markers; one that does not answer is named as such."""
        with ThreadPoolExecutor(8, thread_name_prefix="hosts") as pool:
            asked = [pool.submit(self._runs_on, label, host, owner) for label, host in self._hosts.items()]
            return tuple(found for one in asked for found in one.result())

    def sweep(self, owner: str, regions: tuple[str, ...] | None = None) -> Sweep:
        """Ask every listed host; those that do not answer are named in `missing`."""
        del regions
        found = self.everything(owner)
        silent = tuple(f"{one.id}: {one.detail}" for one in found if not one.run)
        return Sweep((REGION,), tuple(one for one in found if one.run), silent)

    def remove(self, things: tuple[Found, ...]) -> None:
        """End what runs of this computer have on their hosts.

        Raises `CloudError` naming what was taken from elsewhere: only that computer has
        the way in pinned.
        """
        mine = [one.id for one in things if ledger.find(one.id)]
        self.terminate(tuple(mine), 0)
        rest = [one.id for one in things if one.id not in mine]
        if rest:
            raise CloudError(
                f"not taken from this computer: {', '.join(rest)}", hint="run `cloudtrain down` where it was"
            )

    def probes(self, config: Config) -> tuple[Probe, ...]:
        """Return a check for each listed host: that it is the right one, and lets us in."""
        del config
        return tuple(Probe(label, partial(self._probe, label, host)) for label, host in self._hosts.items())

    def _probe(self, label: str, host: Host) -> Check:
        try:
            with taking.reach(label, host) as remote:
                return Check(label, "ok", f"lets {remote.target.user} in, its host key is known")
        except CloudtrainError as error:
            return Check(label, "fail", error.message, error.hint)

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
            return taking.mark(row).machine()
        if spec is None:
            raise GoneError("no host was taken for that attempt")
        host = self._hosts.get(spec.type)
        if host is None:
            raise CapacityError(f"{spec.type} is not listed in `hosts:` any more", code="not listed")
        run = RunRef(spec.tags[RUN], spec.tags[ID], spec.tags[OWNER])
        launches.store(token, json.dumps({"host": asdict(host), "slug": run.slug}).encode())
        try:
            row = taking.take(host, run, token, self._confirm)
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
        return taking.mark(row).machine()

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
                    taking.leave(row, self._leaving)
                except CloudtrainError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def release_access(self, run: RunRef) -> None:
        """Do nothing: there was none to prepare."""
        del run

    def _runs_on(self, label: str, host: Host, owner: str) -> tuple[Found, ...]:
        try:
            with taking.reach(label, host) as remote:
                found = presence.markers(remote)
        except CloudtrainError as error:
            return (Found("instance", label, "", "not asked", mine=False, detail=error.message),)
        return tuple(
            Found(
                kind="instance",
                id=f"{label}/{one.slug}",
                run=one.slug,
                state="taken",
                mine=one.owner == owner,
                region=REGION,
                owner=one.owner,
                price_month=host.price_hour and host.price_hour * HOURS_A_MONTH,
                detail=f"by {one.by}",
            )
            for one in found
        )


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
