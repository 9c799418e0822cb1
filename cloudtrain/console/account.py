"""The asking verbs' answers as text: tables that read well without colour or a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cloudtrain.console.words import duration, money

if TYPE_CHECKING:
    from cloudtrain.models.account import Quota
    from cloudtrain.workflows.audit import Audit, Deletion, Item
    from cloudtrain.workflows.doctor import Diagnosis
    from cloudtrain.workflows.images import Images
    from cloudtrain.workflows.offers import Offers, Row
    from cloudtrain.workflows.quota import Quotas

STATES = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}
NEXT_AFTER_REQUEST = (
    "AWS answers within hours to three days, often by mail; one that tells in the console what you train fares better.",
    "`cloudtrain quota` shows when it is granted. A case that is closed is not always granted.",
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Return rows in columns as wide as their widest word; `right` names columns of numbers."""
    every = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(row[n]) for row in every) for n in range(len(head))]
    numbers = set(right)
    return [
        "  ".join(
            word.rjust(widths[n]) if n in numbers else word.ljust(widths[n]) for n, word in enumerate(row)
        ).rstrip()
        for row in every
    ]


def _price(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:.4f}" if amount < 10 else f"{amount:.2f}"


def images(found: Images) -> list[str]:
    """Return the caller's images as a table, newest first, with what they cost a month."""
    gone = [f"removed {', '.join(found.pruned)}"] if found.pruned else []
    if not found.images:
        return [*gone, f"no image of yours in {found.region}", "hint: `cloudtrain bake` makes one"]
    head = ("image", "made", "recipe", "state", "GB", "a month", "")
    rows = [
        (
            one.image.id or one.image.snapshots[0],
            f"{one.image.created:%Y-%m-%d %H:%M}" if one.image.created else "?",
            one.image.recipe,
            one.image.state,
            str(one.image.size_gb),
            money(one.image.price_month, one.image.currency),
            "`image: auto` takes it" if one.fits else "old" if one.old else "",
        )
        for one in found.images
    ]
    total = f"all of them: at most {money(found.price_month, found.currency)} a month, were they full"
    old = any(one.old for one in found.images)
    hint = ["hint: `cloudtrain images --prune` removes the old ones"] if old else []
    return [*gone, *table(head, rows, right=(4, 5)), total, *hint]


def offers(found: Offers) -> list[str]:
    """Return offers as a table, cheapest first, with what stands behind the prices."""
    if not found.rows:
        return [f"nothing in {found.region} fits", *(f"not known   {text}" for text in found.missing)]
    currency = found.rows[0].offer.currency
    head = ("TYPE", "GPU", "GPU GiB", "VCPU", "RAM GiB", "MARKET", f"{currency}/H", "ALL/H", "LEASE", "ZONES")
    rows = [_offer(row) for row in found.rows]
    sources = sorted({row.offer.price_source for row in found.rows if row.offer.price_source})
    beside = f"{found.volume_gb} GB of volume and a public address"
    listed = ", ".join(sources) or "not known"
    note = f"{found.region}; ALL/H is with {beside}, LEASE is {found.lease_hours:g} h of it; prices: {listed}"
    return [
        *table(head, rows, right=(2, 3, 4, 6, 7, 8)),
        note,
        *(f"not known   {text}" for text in found.missing),
    ]


def _offer(row: Row) -> tuple[str, ...]:
    one = row.offer
    return (
        one.type,
        f"{one.gpu_count} x {one.gpu_name}" if one.gpu_count else "none",
        f"{one.gpu_memory_mib / 1024:.0f}",
        str(one.vcpus),
        f"{one.memory_mib / 1024:.0f}",
        one.market,
        _price(one.price_hour),
        _price(row.hour),
        "?" if row.lease is None else f"{row.lease:.2f}",
        _zones(row),
    )


def _zones(row: Row) -> str:
    prices = {one.zone: one.price_hour for one in row.offer.zone_prices}
    region = row.offer.zones[0][:-1] if row.offer.zones else ""
    words = [
        f"{zone.removeprefix(region)}" + (f" {prices[zone]:.3f}" if zone in prices else "")
        for zone in row.offer.zones
    ]
    return ", ".join(words) or "?"


def quota(found: Quotas) -> list[str]:
    """Return the quotas as a table in vCPUs, and what to do where they do not suffice."""
    head = ("TYPE", "MARKET", "QUOTA", "ALLOWED", "IN USE", "NEEDED", "ENOUGH")
    rows = [
        (
            one.type,
            one.market,
            one.code,
            "?" if one.allowed is None else f"{one.allowed:g}",
            "?" if one.used is None else str(one.used),
            str(one.needed or "?"),
            {True: "yes", False: "NO", None: "?"}[one.enough],
        )
        for one in found.rows
    ]
    lines = table(head, rows, right=(3, 4, 5))
    for one in found.rows:
        lines += _quota_notes(one)
    if found.request is not None:
        asked = found.request
        case = f", support case {asked.case}" if asked.case else ""
        lines += [
            f"asked for {asked.value:g} vCPUs of {asked.code}: {asked.state}{case}",
            *NEXT_AFTER_REQUEST,
        ]
    return list(dict.fromkeys(lines))


def _quota_notes(one: Quota) -> list[str]:
    lines = [f'{one.code} is "{one.name}" in {one.region}, in vCPUs']
    if one.requested is not None:
        lines.append(
            f"{one.requested:g} vCPUs of {one.code} have been asked for already: {one.request_state}"
        )
    if one.enough is False and one.requested is None:
        wanted = one.needed + (one.used or 0)
        lines.append(
            f"to ask for more: cloudtrain quota --type {one.type} --market {one.market} --request {wanted}"
        )
    return [*lines, *(f"not known   {text}" for text in one.missing)]


def doctor(found: Diagnosis) -> list[str]:
    """Return a line a check, with the remedy below what is not well."""
    width = max(len(check.name) for check in found.checks)
    lines: list[str] = []
    for check in found.checks:
        lines.append(f"{STATES[check.state]}  {check.name.ljust(width)}  {check.seen}")
        if check.remedy and check.state != "ok":
            lines.append(f"      {' ' * width}  do: {check.remedy}")
    failed = sum(check.state == "fail" for check in found.checks)
    verdict = f"{failed} of {len(found.checks)} checks block a run" if failed else "nothing blocks a run"
    return [*lines, f"{verdict}; asked in {duration(found.seconds)}"]


def audit(found: Audit) -> list[str]:
    """Return everything found as a table, each with the command that removes it."""
    where = found.regions[0] if len(found.regions) == 1 else f"{len(found.regions)} regions"
    missing = [f"not known   {text}" for text in found.missing]
    unseen = [
        f"{name} is open on this computer, and nothing of it exists: "
        f"`cloudtrain down --name {name.rpartition('-')[0]}` closes it"
        for name in found.unseen
    ]
    if not found.items:
        return [f"nothing of cloudtrain's exists in {where}", *unseen, *missing]
    head = ("REGION", "KIND", "ID", "STATE", "RUN", "OWNER", "A MONTH", "REMOVE WITH")
    rows = [_item(item) for item in found.items]
    notes = [f"{item.found.id}: {item.note}" for item in found.items if item.note]
    total = f"{len(found.items)} things in {where}, {money(found.price_month, found.currency)} a month"
    return [*table(head, rows, right=(6,)), *notes, total, *unseen, *missing]


def _item(item: Item) -> tuple[str, ...]:
    one = item.found
    owner = ("you" if item.known else "you, elsewhere") if one.mine else f"other {one.owner[:6]}"
    price = "?" if one.price_month is None else f"{one.price_month:.2f}"
    kind = f"{one.kind} ({one.detail})" if one.detail else one.kind
    return one.region, kind, one.id, one.state, one.run, owner, price, item.remove


def deletion(done: Deletion) -> list[str]:
    """Return what was removed, and why the rest stays."""
    lines = [f"removed     {one.kind} {one.id} in {one.region}" for one in done.removed]
    lines += [f"kept        {name}: {why}" for name, why in done.kept]
    return lines or ["there was nothing to remove"]
