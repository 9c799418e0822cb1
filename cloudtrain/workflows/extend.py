"""`extend`: a later end of the lease, at a price that is shown first."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cloudtrain.config import from_dict
from cloudtrain.errors import GoneError, RefusedError, UsageError
from cloudtrain.guard import host_config
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.machine import MachineState
from cloudtrain.models.tags import DEADLINE
from cloudtrain.providers.base import Provider
from cloudtrain.ssh.remote import connect
from cloudtrain.workflows.context import check_open, layout_on


@dataclass(frozen=True, slots=True)
class Extended:
    """The lease as it is now. `cost` is what the added time comes to at most."""

    run: str
    machine: str
    state: MachineState
    until: datetime
    left_s: float
    added_hours: float
    price_hour: float | None
    cost: float | None
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class More:
    """What is added: hours, or what this much money buys."""

    hours: float | None = None
    cost: float | None = None


def extend(
    folder: RunFolder,
    provider: Provider,
    more: More,
    confirm: Callable[[str], bool],
    *,
    now: datetime | None = None,
) -> Extended:
    """Move the deadline: the tag that the machine's guard reads, also of a stopped machine.

    A lease that has ended begins again now. Raises `UsageError` without exactly one
    amount, for money without a price, and on a "no"; `GoneError` without a machine;
    `RefusedError` for a machine of the user's own on which nothing was agreed.
    """
    record = folder.record()
    if record.own and not record.deadline:
        raise RefusedError("this run has no lease: nothing ends it on a machine of your own but you")
    hours = _hours(more, record.price_hour)
    observed = provider.observe(folder.run())
    machine = next((one for one in reversed(observed.machines) if one.alive), None)
    if machine is None:
        raise GoneError("there is no machine to extend", hint="`cloudtrain up` launches one")
    now = now or datetime.now(UTC)
    before = datetime.fromisoformat(record.deadline) if record.deadline else now
    tagged = provider.tags_of(machine.id).get(DEADLINE, "")
    if tagged.isdigit():  # another computer may have extended it
        before = datetime.fromtimestamp(int(tagged), UTC)
    until = (max(before, now) + timedelta(hours=hours)).replace(microsecond=0)
    added = (until - max(before, now)).total_seconds() / 3600
    cost = None if record.price_hour is None else record.price_hour * added
    price = "at a price not known" if cost is None else f"at most {cost:.2f} {record.currency} more"
    if not confirm(f"{added:.1f} h more, until {until:%Y-%m-%d %H:%M} UTC, {price}. Go ahead?"):
        raise UsageError("the lease stays as it is")
    with folder.changing():
        check_open(folder)
        if record.own:
            _tell_guard(folder, until)
        folder.journal.append("extend", machine=machine.id, deadline=until.isoformat())
        provider.tag(machine.id, {DEADLINE: str(int(until.timestamp()))})
        folder.update(deadline=until.isoformat())
    left = (until - now).total_seconds()
    return Extended(
        folder.path.name,
        machine.id,
        machine.state,
        until,
        left,
        added,
        record.price_hour,
        cost,
        record.currency,
    )


def _tell_guard(folder: RunFolder, until: datetime) -> None:
    """Tell the guard beside the sessions, which has no tag to read."""
    config = from_dict(folder.load_config() or {})
    with connect(folder.target()) as remote:
        layout = layout_on(remote, folder)
        guard = json.dumps(host_config(layout, deadline=until, lease=config.lease)).encode()
        remote.put(guard, f"{layout.root}/guard/guard.json")
        # One that has ended with its session would go on saying so.
        remote.run(f"rm -f {shlex.quote(layout.root)}/guard/state/status.json")


def _hours(more: More, price_hour: float | None) -> float:
    if (more.hours is None) == (more.cost is None):
        raise UsageError("say how much more", hint="`--hours 2`, or `--cost 1.50`")
    if more.hours is not None:
        return more.hours
    if not price_hour or more.cost is None:
        raise UsageError("the price of this machine is not known", hint="use `--hours`")
    return more.cost / price_hour
