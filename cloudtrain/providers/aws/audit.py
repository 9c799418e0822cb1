"""Everything that carries our tags, in one region or in every one the account has enabled.

Regions are asked side by side, and so are the kinds in a region. A region that does
not tell (denied by a company's policy, or silent) is named and hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloudtrain.models.account import Sweep
from cloudtrain.models.plan import HOURS_A_MONTH, Found, FoundKind, Rates
from cloudtrain.models.tags import ID, OWNER, RUN
from cloudtrain.providers.aws import prices
from cloudtrain.providers.aws.advice import Advice, ask, ask_each
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import FAILURES, translate

Row = Mapping[str, Any]
SWEEP_S = 60.0
"""How long all regions together may take."""
WIDTH = 24


@dataclass(frozen=True, slots=True)
class _Question:
    """One describe call, and where its answer holds what we want to know."""

    kind: FoundKind
    operation: str
    list_field: str
    id_field: str
    state: Callable[[Row], str] = lambda _: "exists"
    machine: Callable[[Row], str] = lambda _: ""
    detail: Callable[[Row], str] = lambda _: ""
    own: str = ""
    """The argument that leaves out what others have shared with the account."""


def _attached(row: Row) -> str:
    found: Sequence[Row] = row.get("Attachments") or ()
    return str(found[0].get("InstanceId", "")) if found else ""


def _holder(row: Row) -> str:
    held: Row = row.get("Attachment") or {}
    return str(held.get("InstanceId", ""))


def _named(field: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(field) or "")


_QUESTIONS = (
    _Question(
        "instance",
        "describe_instances",
        "Reservations",
        "InstanceId",
        state=lambda row: str(row["State"]["Name"]),
        machine=lambda row: str(row["InstanceId"]),
        detail=lambda row: " ".join(
            (str(row.get("InstanceType", "")), str(row.get("InstanceLifecycle", "on-demand")))
        ),
    ),
    _Question(
        "spot-request",
        "describe_spot_instance_requests",
        "SpotInstanceRequests",
        "SpotInstanceRequestId",
        state=_named("State"),
        machine=_named("InstanceId"),
    ),
    _Question(
        "volume",
        "describe_volumes",
        "Volumes",
        "VolumeId",
        state=_named("State"),
        machine=_attached,
        detail=lambda row: f"{row.get('Size', 0)} GB {row.get('VolumeType', '')}",
    ),
    _Question(
        "interface",
        "describe_network_interfaces",
        "NetworkInterfaces",
        "NetworkInterfaceId",
        state=_named("Status"),
        machine=_holder,
    ),
    _Question(
        "address",
        "describe_addresses",
        "Addresses",
        "AllocationId",
        state=lambda row: "in use" if row.get("AssociationId") else "not in use",
        machine=_named("InstanceId"),
        detail=_named("PublicIp"),
    ),
    _Question(
        "snapshot",
        "describe_snapshots",
        "Snapshots",
        "SnapshotId",
        state=_named("State"),
        detail=lambda row: f"{row.get('VolumeSize', 0)} GB, billed by what it holds",
        own="OwnerIds",
    ),
    _Question(
        "image",
        "describe_images",
        "Images",
        "ImageId",
        state=_named("State"),
        detail=_named("Name"),
        own="Owners",
    ),
    _Question("security-group", "describe_security_groups", "SecurityGroups", "GroupId"),
    _Question("key-pair", "describe_key_pairs", "KeyPairs", "KeyName"),
)
_ENDED = {"terminated", "closed", "cancelled", "failed", "deregistered"}


def everything(clients: Clients, owner: str) -> tuple[Found, ...]:
    """Return what exists in one region, of every run and owner; what has ended is left out.

    Raises `CloudError` where a question is denied.
    """
    asked = ask_each(lambda question: _ask(clients, question, owner), _QUESTIONS)
    advice = Advice(SWEEP_S)
    return tuple(found for future in asked.values() for found, _ in _told(advice, future))


def _told(advice: Advice, future: Any) -> list[tuple[Found, Row]]:  # noqa: ANN401 - a Future of it
    try:
        return advice.wait(future)
    except FAILURES as error:
        raise translate(error, "looking for everything of cloudtrain's") from error


def sweep(clients: Clients, owner: str, regions: tuple[str, ...] | None = None) -> Sweep:
    """Return everything of ours, priced, in the given regions, else in every enabled one."""
    advice = Advice(SWEEP_S)
    names = regions or _enabled(clients, advice)
    places = {name: clients.at(name) for name in names}
    jobs = [(name, question) for question in _QUESTIONS for name in names]
    asked = ask_each(lambda job: _ask(places[job[0]], job[1], owner), jobs, width=WIDTH)
    found: dict[str, list[tuple[Found, Row]]] = {name: [] for name in names}
    for (name, question), future in asked.items():
        nothing: list[tuple[Found, Row]] = []
        found[name] += advice.take(future, f"{_plural(question.kind)} in {name}", nothing)
    told = [name for name in names if found[name]]
    rows = ask_each(lambda name: _priced(places[name], found[name]), told)
    unpriced = {name: [one for one, _ in found[name]] for name in told}
    every = [one for name in told for one in advice.take(rows[name], f"prices in {name}", unpriced[name])]
    return Sweep(names, tuple(every), _summed(advice.missing, names))


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _enabled(clients: Clients, advice: Advice) -> tuple[str, ...]:
    """Return the account's regions; where that is denied, the one region in use."""
    rows = advice.take(
        ask(lambda: clients.sweeper.describe_regions()["Regions"]),
        f"which regions are enabled, so only {clients.region} was looked at",
        [],
    )
    names = sorted(str(row.get("RegionName")) for row in rows if row.get("OptInStatus") != "not-opted-in")
    return tuple(names) or (clients.region,)


def _summed(missing: list[str], names: tuple[str, ...]) -> tuple[str, ...]:
    """Say of a region that told nothing at all one line instead of nine."""
    kept: list[str] = []
    for text in missing:
        what, _, why = text.partition(" (")
        region = what.rpartition(" in ")[2]
        same = [one for one in missing if f"s in {region} (" in one]
        if region in names and len(same) == len(_QUESTIONS):
            text = f"anything in {region} ({why}"  # noqa: PLW2901 - the line that stands for all
        if text not in kept:
            kept.append(text)
    return tuple(kept)


def _ask(clients: Clients, question: _Question, owner: str) -> list[tuple[Found, Row]]:
    ec2: Any = clients.sweeper
    request: dict[str, Any] = {"Filters": [{"Name": "tag-key", "Values": [OWNER]}]}
    if question.own:
        request[question.own] = ["self"]
    if ec2.can_paginate(question.operation):
        pages = ec2.get_paginator(question.operation).paginate(**request)
    else:
        pages = [getattr(ec2, question.operation)(**request)]
    rows = [row for page in pages for row in page[question.list_field]]
    if question.kind == "instance":
        rows = [item for row in rows for item in row["Instances"]]
    found = [(_found(question, row, owner, clients.region), row) for row in rows]
    return [pair for pair in found if pair[0].state not in _ENDED and pair[0].owner]


def _found(question: _Question, row: Row, owner: str, region: str) -> Found:
    pairs: list[Row] = row.get("Tags") or row.get("TagSet") or []
    tags = {str(pair["Key"]): str(pair.get("Value", "")) for pair in pairs}
    return Found(
        kind=question.kind,
        id=str(row.get(question.id_field, "")),
        run=f"{tags.get(RUN, '?')}-{tags.get(ID, '?')}",
        state=question.state(row),
        mine=tags.get(OWNER) == owner,
        region=region,
        owner=tags.get(OWNER, ""),
        machine=question.machine(row),
        detail=question.detail(row),
    )


def _priced(clients: Clients, found: list[tuple[Found, Row]]) -> list[Found]:
    """Return what was found in a region with what it costs a month as it is now."""
    running = [row for one, row in found if one.kind == "instance" and one.state in ("running", "pending")]
    types = sorted({str(row.get("InstanceType")) for row in running})
    asked = prices.on_demand(clients, types)
    history = ask(lambda: prices.spot(clients, types))
    rates = ask(lambda: prices.rates(clients))
    advice = Advice()
    listed = {name: prices.settled(clients, advice, name, asked[name]).amount for name in types}
    spot = {
        (name, one.zone): one.price_hour
        for name, zones in advice.take(history, "spot prices", {}).items()
        for one in zones
    }
    known = advice.take(rates, "rates", Rates())
    return [
        replace(one, price_month=_monthly(one, row, known, listed, spot), currency=known.currency)
        for one, row in found
    ]


def _monthly(
    one: Found,
    row: Row,
    rates: Rates,
    listed: Mapping[str, float | None],
    spot: Mapping[tuple[str, str], float],
) -> float | None:
    """Return the price of one thing; a machine's volumes are things of their own."""
    if one.kind == "volume":
        return _times(rates.storage_hour(int(row.get("Size", 0))))
    if one.kind == "address":
        return _times(rates.address_hour)
    if one.kind in ("snapshot", "image"):
        return None  # billed by the blocks that it holds, which nobody tells
    if one.kind != "instance" or one.state not in ("running", "pending"):
        return 0.0
    name, zone = str(row.get("InstanceType")), str(row.get("Placement", {}).get("AvailabilityZone"))
    hour = spot.get((name, zone)) if row.get("InstanceLifecycle") == "spot" else listed.get(name)
    address = rates.address_hour if row.get("PublicIpAddress") else 0.0
    return None if hour is None or address is None else _times(hour + address)


def _times(hour: float | None) -> float | None:
    return None if hour is None else hour * HOURS_A_MONTH


def regions_of(found: Iterable[Found]) -> tuple[str, ...]:
    """Return the regions of some things, each once."""
    return tuple(dict.fromkeys(one.region for one in found))
