"""Ending a run in the cloud: terminate, release, and ask until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from cloudtrain.errors import CloudError
from cloudtrain.events import Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import launched_machines, open_attempt, unended_machines
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Observation, Receipt
from cloudtrain.providers.base import Provider
from cloudtrain.provision.apply import resolve_open_attempt

GONE_S = 300
"""How long a machine may take to be gone."""
SETTLE_S = 30
"""How long "nothing is left" is asked again: a describe may lag behind a deletion."""


def find_everything(
    folder: RunFolder,
    provider: Provider,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    look_s: float = 5.0,
) -> Observation:
    """Return what exists of a run, machines of a lost answer included.

    An attempt whose answer was lost is first looked for by its tags, for a bounded
    time; only if it does not show is its request replayed, which is the one way to
    learn its machine's id, in order to end it.
    """
    observed = provider.observe(folder.run())
    if open_attempt(folder.journal.rows()) is None:
        return observed
    known = set(launched_machines(folder.journal.rows()))
    end = clock() + look_s
    while not _unknown(observed, known):
        if clock() > end:
            machine = resolve_open_attempt(folder, provider)
            return _with(provider.observe(folder.run()), machine)
        sleep(0.3)
        observed = provider.observe(folder.run())
    return observed


def terminate_all(observed: Observation, folder: RunFolder, provider: Provider, timeline: Timeline) -> None:
    """Terminate every machine that is there and everything that opened the way to it.

    Machines that the journal knows and the cloud does not show are terminated by id
    too: a describe may lag behind the launch it follows.
    """
    ids = [machine.id for machine in observed.machines if machine.state != "terminated"]
    shown = {machine.id for machine in observed.machines}
    ids += [name for name in unended_machines(folder.journal.rows()) if name not in shown]
    if ids:
        with timeline.stage("terminate", ", ".join(ids)):
            folder.journal.append("terminate", machines=ids)
            provider.terminate(tuple(ids), GONE_S)
            folder.journal.append("terminated", machines=ids)
            folder.update(machine=None, address=None)
    with timeline.stage("release", "key pair and security group"):
        folder.journal.append("release")
        provider.release_access(folder.run())


def prove_nothing_left(
    folder: RunFolder,
    provider: Provider,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Observation:
    """Ask the cloud until it shows nothing of the run. Raises `CloudError` naming what stays."""
    end = clock() + SETTLE_S
    while True:
        observed = provider.observe(folder.run())
        if observed.empty:
            return observed
        if clock() > end:
            raise CloudError(
                f"still there: {', '.join(names(observed))}",
                hint="run `cloudtrain down` again; if it stays, the EC2 console shows why",
            )
        sleep(0.3)


def names(observed: Observation) -> tuple[str, ...]:
    """Name everything of a run that is still there."""
    found = [f"{machine.id} ({machine.state})" for machine in observed.machines if machine.alive]
    if observed.key_pair:
        found.append(f"key pair {observed.key_pair}")
    if observed.security_group:
        found.append(f"security group {observed.security_group}")
    return (*found, *observed.leftovers)


def receipt(folder: RunFolder, observed: Observation, now: datetime | None = None) -> Receipt:
    """Return what the run cost until now, from its machines' own launch times.

    An upper bound: hours in which a machine was stopped count at its full price,
    because the cloud does not tell when it was.
    """
    record = folder.record()
    end = now or datetime.now(UTC)
    started = min((machine.launched for machine in observed.machines), default=None)
    hours = (end - started).total_seconds() / 3600 if started else 0.0
    cost = None if record.price_hour is None else hours * record.price_hour
    return Receipt(hours, cost, record.currency, names(observed))


def _unknown(observed: Observation, known: set[str]) -> bool:
    return any(machine.id not in known for machine in observed.machines)


def _with(observed: Observation, machine: Machine | None) -> Observation:
    if machine is None or any(machine.id == other.id for other in observed.machines):
        return observed
    return Observation(
        (*observed.machines, machine), observed.key_pair, observed.security_group, observed.leftovers
    )
