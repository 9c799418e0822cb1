"""Ending a run in the cloud: terminate, release, and ask until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from cloudtrain.errors import CloudError
from cloudtrain.events import Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import (
    Row,
    attempt_of,
    ended_at,
    launched_at,
    launched_machines,
    open_attempt,
    parked_seconds,
    unended_machines,
)
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Observation, Receipt
from cloudtrain.providers.base import Provider
from cloudtrain.provision.launch import confirm, resolve_open_attempt
from cloudtrain.provision.look import observe_settled
from cloudtrain.provision.plan import storage_hour

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
    observed = observe_settled(folder, provider)
    if open_attempt(folder.journal.rows()) is None:
        return observed
    attempt = open_attempt(folder.journal.rows())
    known = set(launched_machines(folder.journal.rows()))
    end = clock() + look_s
    while not _unknown(observed, known):
        if clock() > end:
            machine = resolve_open_attempt(folder, provider)
            return _with(provider.observe(folder.run()), machine)
        sleep(0.3)
        observed = provider.observe(folder.run())
    made = [machine.id for machine in observed.machines if machine.id not in known]
    if attempt is not None:
        confirm(folder, attempt, made[-1])
    return observed


def terminate_all(observed: Observation, folder: RunFolder, provider: Provider, timeline: Timeline) -> None:
    """Terminate every machine that is there and everything that opened the way to it.

    Machines that the journal knows and the cloud does not show are terminated by id
    too: one may have been launched after the look.
    """
    ids = [machine.id for machine in observed.machines if machine.state != "terminated"]
    shown = {machine.id for machine in observed.machines}
    ids += [name for name in unended_machines(folder.journal.rows()) if name not in shown]
    if ids:
        with timeline.stage("terminate", ", ".join(ids)):
            folder.journal.append("terminate", machines=ids)
            provider.terminate(tuple(ids), GONE_S, launched=_births(observed, folder, ids))
            folder.journal.append("terminated", machines=ids)
            folder.update(machine=None, address=None)
    with timeline.stage("release", "key pair and security group"):
        folder.journal.append("release")
        provider.release_access(folder.run())


def _births(observed: Observation, folder: RunFolder, ids: list[str]) -> dict[str, datetime]:
    """Return when each machine was launched: a young one may be unknown to AWS for a moment."""
    rows = folder.journal.rows()
    told = {name: launched_at(rows, name) for name in ids}
    seen = {machine.id: machine.launched for machine in observed.machines}
    return {name: at for name in ids if (at := told[name] or seen.get(name))}


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

    Hours in which a machine was off count at the price of its volume: stopped by this
    computer, or by itself, as its guard tells at its next start. Until then it is an upper
    bound: the cloud does not tell since when. A machine that is not to be seen any more counts
    until the cloud stopped showing it. Each counts at the price it was launched at.
    """
    record, rows = folder.record(), folder.journal.rows()
    end = now or datetime.now(UTC)
    spans = _spans(rows, observed, end)
    hours = parked = cost = 0.0
    priced = True
    for machine, (began, ended) in spans.items():
        off = parked_seconds(rows, machine, ended) / 3600
        lived = max(off, (ended - began).total_seconds() / 3600)
        attempt = attempt_of(rows, machine)
        price = attempt.price_hour if attempt else record.price_hour
        volume = attempt.volume_gb if attempt else record.volume_gb
        hours, parked = hours + lived, parked + off
        if price is None:
            priced = False
        else:
            cost += (lived - off) * price + off * storage_hour(volume)
    known = cost if priced and (spans or record.price_hour is not None) else None
    return Receipt(hours, known, record.currency, names(observed), parked)


def _spans(
    rows: tuple[Row, ...], observed: Observation, now: datetime
) -> dict[str, tuple[datetime, datetime]]:
    """Return when each machine of a run began and ended, by whoever knows: cloud and journal."""
    spans: dict[str, tuple[datetime, datetime]] = {}
    for name in launched_machines(rows):
        began = launched_at(rows, name)
        if began is not None:
            spans[name] = (began, ended_at(rows, name) or now)
    for machine in observed.machines:
        began, ended = spans.get(machine.id, (machine.launched, now))
        spans[machine.id] = (min(began, machine.launched), ended)
    return spans


def _unknown(observed: Observation, known: set[str]) -> bool:
    return any(machine.id not in known for machine in observed.machines)


def _with(observed: Observation, machine: Machine | None) -> Observation:
    if machine is None or any(machine.id == other.id for other in observed.machines):
        return observed
    return Observation(
        (*observed.machines, machine), observed.key_pair, observed.security_group, observed.leftovers
    )
