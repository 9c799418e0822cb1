"""Numbers as people read them, and results as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cloudtrain.events import Note, Progress, StageFinished, StageTime, Waterfall
from cloudtrain.models.image import BakedImage
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Offer, Plan, Receipt
from cloudtrain.models.sweeping import SweepStatus
from cloudtrain.models.training import Artifact, StepReport, TrainingStatus

if TYPE_CHECKING:
    from cloudtrain.journal.folder import RunRecord, Timing
    from cloudtrain.workflows.extend import Extended
    from cloudtrain.workflows.provision import Provisioned
    from cloudtrain.workflows.status import LeaseStatus


def size(count: float) -> str:
    """Return bytes as `1.2 MB`."""
    if count < 999.5:
        return f"{count:.0f} B"
    unit, divisor = next(
        ((unit, divisor) for unit, divisor in (("kB", 1e3), ("MB", 1e6)) if count / divisor < 999.95),
        ("GB", 1e9),
    )
    return f"{count / divisor:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return seconds as `0.4 s`, `2 min 5 s` or `3 h 12 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def money(amount: float | None, currency: str = "USD") -> str:
    """Return `0.53 USD`, with more digits for less; `not known` for None."""
    if amount is None:
        return "not known"
    digits = 2 if amount >= 1 or amount == 0 else 3 if amount >= 0.01 else 5
    return f"{amount:.{digits}f} {currency}"


def machine(found: Machine) -> str:
    """Return the line of `status` about a machine; of one that is gone, with what to do next."""
    if not found.alive:
        return (
            f"machine     {found.id} is gone ({found.state})\n"
            "hint: `cloudtrain down` tidies up, `cloudtrain up` launches another"
        )
    if found.login is not None:
        return f"machine     {found.id}, your own at {found.address}"
    line = f"machine     {found.id} is {found.state}: {found.type} ({found.market}) in {found.zone}"
    if found.state in ("stopping", "stopped"):
        line += "\nhint: `cloudtrain start` goes on with it; its disk is still paid for"
    return line


def metrics(values: Mapping[str, float]) -> str:
    """Return the metrics that say most: mAP where there is one, else the first three."""
    chosen = {name: value for name, value in values.items() if "map" in name.lower()} or dict(
        list(values.items())[:3]
    )
    return ", ".join(
        f"{name.rsplit('/', 1)[-1].removesuffix('(B)')} {value:.3f}" for name, value in chosen.items()
    )


def note(event: Note) -> str:
    """Return a note as text; the word says its level, colour never does alone."""
    text = f"warning: {event.text}" if event.level == "warning" else event.text
    return f"{text}\nhint: {event.hint}" if event.hint else text


def finished(event: StageFinished, marks: tuple[str, str]) -> str:
    """Return the line that ends a stage."""
    outcome = f"  {event.outcome}" if event.outcome else ""
    return f"{marks[0] if event.ok else marks[1]} {event.stage}{outcome}  {duration(event.seconds)}"


def progress(event: Progress) -> str:
    """Return how far a stage is, and how long it will take."""
    if not event.done and not event.total:
        return event.detail
    amount = size if event.unit == "bytes" else "{:g}".format
    of = f" of {amount(event.total)}" if event.total else ""
    unit = "" if event.unit == "bytes" else f" {event.unit}"
    if event.files_total:
        unit += f", {event.files} of {event.files_total} files"
    rate = f", {amount(event.rate)}/s" if event.rate else ""
    if event.best and event.rate and event.best > 1.2 * event.rate:
        rate += f" (the line can {amount(event.best)}/s)"
    left = f"{rate}, {duration(event.eta_s)} left" if event.eta_s is not None else rate
    detail = f"  {event.detail}" if event.detail else ""
    return f"{amount(event.done)}{of}{unit}{left}{detail}"


def plan(made: Plan) -> list[str]:
    """Return a plan as lines: what will be had, what it costs, what will be done."""
    offer = made.offer
    currency = offer.currency if offer else "USD"
    image = f"image {made.image.name}" if made.image else "the image it has"
    source = f" (price: {offer.price_source})" if offer and offer.price_source else ""
    until = f", until {made.deadline:%Y-%m-%d %H:%M} UTC" if made.deadline else ""
    rescue = f"; in that {made.rescue_hours:.1f} h to bring the weights home" if made.rescue_hours else ""
    rows = [("machine", _machine(offer))] if offer else []
    if not made.volume_gb:  # a host of the user's own: nothing is rented, and it is as it is
        rows = [("machine", f"{offer.type}, your own" if offer else "your own")]
        rows += [("price", f"{money(made.price_hour, currency)} an hour")]
        if made.lease_hours is not None:
            cost = f", {money(made.lease_cost, currency)}" if made.lease_cost is not None else ""
            rows += [("lease", f"{made.lease_hours:.1f} h{cost}{until}")]
        return _listed(rows, made)
    rows += [("else", _alternative(other)) for other in made.alternatives]
    rows += [
        ("where", f"{made.region}, {image}, {made.volume_gb} GB encrypted volume"),
        ("price", f"{money(made.price_hour, currency)} an hour with volume and address{source}"),
        ("lease", f"{made.lease_hours:.1f} h, at most {money(made.lease_cost, currency)}{until}{rescue}"),
        ("data", "code and dataset go to the machine's own disk, over SSH"),
    ]
    return _listed(rows, made)


def _listed(rows: list[tuple[str, str]], made: Plan) -> list[str]:
    rows += [("do" if n == 0 else "", f"{one.what}: {one.why}") for n, one in enumerate(made.actions)]
    rows += [("note", text) for text in made.notes]
    return ["plan", *(f"  {head:<8}  {text}" for head, text in rows)]


def _machine(offer: Offer) -> str:
    memory = f", {offer.gpu_memory_mib / 1024:.0f} GiB" if offer.gpu_memory_mib else ""
    gpu = f"{offer.gpu_count} x {offer.gpu_name}{memory}" if offer.gpu_count else "no GPU"
    ram = f"{offer.memory_mib / 1024:.0f} GiB RAM"
    return f"{offer.type} ({offer.market}): {gpu}; {offer.vcpus} vCPU, {ram}"


def _alternative(offer: Offer) -> str:
    price = (
        "price not known"
        if offer.price_hour is None
        else f"{money(offer.price_hour, offer.currency)} an hour"
    )
    return f"{offer.type} ({offer.market}), {price} without volume and address"


def baked(image: BakedImage, cost: float | None) -> list[str]:
    """Return the lines about an image that was just made."""
    keeps = f"at most {money(image.price_month, image.currency)} a month for up to {image.size_gb} GB"
    return [
        f"{image.id} ({image.name}) is yours in {image.region}: recipe {image.recipe}",
        f"making it cost {money(cost, image.currency)} at most; keeping it costs {keeps}",
        "next: `cloudtrain up` with `image: auto` starts from it; `cloudtrain images` lists what you have",
    ]


BAR = 32
"""Letters of the longest bar."""


def waterfall(shown: Waterfall, *, width: int | None = None) -> list[str]:
    """Return a bar a stage, with a star on those that the end waited for.

    `width` is the terminal's: outcomes are cut there, and bars are shorter where it is narrow.
    """
    total = shown.total_s or 1.0
    names = max(len(name) for name in ("total", *(stage.stage for stage in shown.stages)))
    bar = BAR if width is None else max(8, min(BAR, width - names - 16))
    rows: list[str] = []
    for stage in shown.stages:
        start = min(round(stage.start / total * bar), bar - 1)
        length = max(1, min(round(stage.seconds / total * bar), bar - start))
        star = "*" if stage.stage in shown.critical else " "
        said = stage.outcome if stage.ok else f"failed  {stage.outcome}"
        said += f"  (after {', '.join(stage.after)})" if stage.after else ""
        drawn = (" " * start + "#" * length).ljust(bar)
        rows.append(f"{star} {stage.stage:<{names}}  {drawn}  {duration(stage.seconds):>9}  {said}".rstrip())
    waited = "  (* the end waited for it)" if shown.critical else ""
    rows.append(f"  {'total':<{names}}  {' ' * bar}  {duration(shown.total_s):>9}{waited}")
    return [cut(row, width) for row in rows]


def timings(kept: Sequence[Timing]) -> list[str]:
    """Return the newest command's stages as a table, and a line for each earlier one."""
    if not kept:
        return ["nothing was timed yet"]
    *earlier, newest = kept
    shown = newest.waterfall
    names = max(len(stage.stage) for stage in (*shown.stages, StageTime("stage", 0, 0, "", ok=True)))
    waits = max(
        len(", ".join(stage.after))
        for stage in (*shown.stages, StageTime("", 0, 0, "", True, ("waited for",)))
    )
    rows = [
        f"  {one.verb} {one.at[:16].replace('T', ' ')} UTC: {duration(one.waterfall.total_s)}"
        for one in earlier
    ]
    rows += [f"{newest.verb} {newest.at[:16].replace('T', ' ')} UTC: {duration(shown.total_s)}"]
    rows += [f"  {'stage':<{names}}  {'start':>11}  {'took':>11}  {'waited for':<{waits}}  outcome"]
    for stage in shown.stages:
        star = "*" if stage.stage in shown.critical else " "
        start, took = duration(stage.start), duration(stage.seconds)
        said = stage.outcome if stage.ok else f"failed  {stage.outcome}"
        after = ", ".join(stage.after)
        rows.append(
            f"{star} {stage.stage:<{names}}  {start:>11}  {took:>11}  {after:<{waits}}  {said}".rstrip()
        )
    return [*rows, "(* the end waited for it)"]


def cut(text: str, width: int | None) -> str:
    """Return a line that fits into `width` letters."""
    return text if width is None or len(text) <= width else f"{text[: max(1, width - 3)]}..."


def receipt(shown: Receipt) -> list[str]:
    """Return what was spent, and what is left, which should be nothing."""
    left = len(shown.leftovers)
    ran = f"{duration((shown.hours - shown.parked_hours) * 3600)} of machine time"
    off = f", {duration(shown.parked_hours * 3600)} parked" if shown.parked_hours else ""
    lines = [f"{ran}{off}, {money(shown.cost, shown.currency)} at most; {left} left in the cloud"]
    if shown.ended_by:
        lines.append(f"lease       the machine had powered itself off ({shown.ended_by})")
    return lines + [f"left        {what}" for what in shown.leftovers]


def steps(reports: Iterable[StepReport]) -> list[str]:
    """Return a line for each step: its name, what became of it, and why."""
    found: list[str] = []
    for report in reports:
        spent = duration(report.seconds) if report.outcome == "changed" else ""
        said = report.detail.partition("\n")[0] or spent
        found.append(f"{report.name:<13} {report.outcome:<10} {said}".rstrip())
    return found


def training(status: TrainingStatus) -> list[str]:
    """Return how a training is doing."""
    session = status.session
    ended = f", exit code {session.exit_code}" if session.exit_code is not None else ""
    lines = [f"training    session {session.number:03d} is {session.how}{ended}"]
    if status.epoch is not None:
        of = f" of {status.epochs}" if status.epochs else ""
        lines.append(f"epoch       {status.epoch}{of}  {metrics(status.metrics)}")
    if status.trouble is not None:
        lines.append(f"trouble     {status.trouble.text}\nhint: {status.trouble.hint}")
    if status.secured is not None:
        epoch = f"epoch {status.secured.epoch}, " if status.secured.epoch is not None else ""
        lines.append(f"secured     {epoch}{duration(status.secured.age_s)} ago")
    if status.checkpoint_age_s is not None:
        lines.append(f"checkpoint  {status.checkpoint or 'newest'}, {duration(status.checkpoint_age_s)} old")
    if status.last_line:
        lines.append(f"last line   {status.last_line[:120]}")
    return lines


def provisioned(done: Provisioned) -> str:
    """Say in a line what became of a machine's steps."""
    pending = sum(report.outcome == "pending" for report in done.steps)
    counted = f"{pending} steps pending" if done.dry_run else f"{done.changed} steps changed"
    return f"{done.run}: {counted} of {len(done.steps)}"


def price_now(record: RunRecord, machine: Machine | None) -> str:
    """Return what an hour costs now: of a machine that is stopped, its disk."""
    if machine is not None and machine.state == "stopped":
        from cloudtrain.provision.plan import storage_hour

        return f"{money(storage_hour(record.volume_gb), record.currency)} an hour for its disk while it is stopped"
    return f"{money(record.price_hour, record.currency)} an hour"


def lease(status: LeaseStatus) -> list[str]:
    """Return how long the machine may live, what it is waiting for, and the work at risk now."""
    lines = [f"away        {status.away}"] if status.away else []
    if status.at_risk_s is not None:
        lines.append(f"at risk     {duration(status.at_risk_s)} of work since the last secured checkpoint")
    if status.until is None or status.left_s is None:
        lines.append(f"lease       {'none was given' if status.own else 'not known'}")
    elif status.left_s > 0:
        idle = ""
        if status.idle_after_s and status.idle_for_s is not None:
            idle = f"; idle {duration(status.idle_for_s)} of {duration(status.idle_after_s)}"
        lines.append(f"lease       {duration(status.left_s)} left, until {_at(status.until)}{idle}")
    else:
        open_ = "; a rescue window is open" if status.rescue else ""
        lines.append(f"lease       ended {_at(status.until)}{open_}\nhint: `cloudtrain extend --hours 2`")
    if status.ending:
        what = "the training is ended" if status.own else "it powers off"
        lines.append(f"ending      {what}: {status.ending}")
    return lines + [f"notice      {_at(one.at)}: {one.text}" for one in status.notices]


def extended(done: Extended) -> list[str]:
    """Return until when a machine may live now, and what that comes to."""
    price = money(done.price_hour, done.currency)
    added = f"at most {money(done.cost, done.currency)} more" if done.cost is not None else "price not known"
    lines = [f"{done.run}: the lease ends {_at(done.until)}, {duration(done.left_s)} from now"]
    lines.append(f"{added}, at {price} an hour")
    if done.state == "stopped":
        lines.append("the machine is stopped and stays so: `cloudtrain start` goes on with it")
    return lines


def _at(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def sweep(found: SweepStatus) -> list[str]:
    """Return how a search stands: trials, the best, and a line a worker."""
    lines = [f"trials      {found.done} of {found.trials} are done, in {found.table}"]
    if found.best_fitness is not None:
        lines.append(f"best        trial {found.best_trial}, fitness {found.best_fitness:.5f}")
    for one in found.workers:
        again = f", started again {one.restarts} times" if one.restarts else ""
        lines.append(f"worker {one.number:<4} {one.state} on {one.device}: {one.done} trials{again}")
    return lines


def artifacts(found: Iterable[Artifact]) -> list[str]:
    """Return a line a checkpoint, then a count of everything else."""
    every = tuple(found)
    shown = [one for one in every if one.kind in ("best", "last", "checkpoint")]
    lines = [_artifact(one) for one in shown]
    rest = len(every) - len(shown)
    if rest:
        folder = next(one.path.parent for one in every if one not in shown)
        lines.append(f"and {rest} more files (results, plots, log) in {folder}")
    return lines or ["no checkpoint was written yet"]


def _artifact(one: Artifact) -> str:
    epoch = f", epoch {one.epoch}" if one.epoch is not None else ""
    said = f", {metrics(one.metrics)}" if one.metrics else ""
    new = "" if one.fetched else " (was here)"
    whole = "whole" if one.complete else "not proven whole"
    return f"{one.path}  {size(one.size)}, {whole}{epoch}{said}{new}"
