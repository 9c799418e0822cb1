"""Numbers as people read them, and results as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloudtrain.events import Waterfall
from cloudtrain.models.plan import Plan
from cloudtrain.models.training import Artifact, TrainingStatus


def size(count: float) -> str:
    """Return bytes as `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit returns")


def duration(seconds: float) -> str:
    """Return seconds as `0.4 s`, `2 min 5 s` or `3 h 12 min`."""
    if seconds < 60:
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


def metrics(values: Mapping[str, float]) -> str:
    """Return the metrics that say most: mAP where there is one, else the first three."""
    chosen = {name: value for name, value in values.items() if "map" in name.lower()} or dict(
        list(values.items())[:3]
    )
    return ", ".join(
        f"{name.rsplit('/', 1)[-1].removesuffix('(B)')} {value:.3f}" for name, value in chosen.items()
    )


def plan(made: Plan) -> list[str]:
    """Return a plan as lines: what will be had, what it costs, what will be created."""
    offer = made.offer
    lines = ["plan"]
    if offer is not None:
        gpu = (
            f"{offer.gpu_count} x {offer.gpu_name}, {offer.gpu_memory_mib / 1024:.0f} GiB"
            if offer.gpu_count
            else "no GPU"
        )
        lines.append(
            f"  machine   {offer.type} ({offer.market}): {gpu}; {offer.vcpus} vCPU, {offer.memory_mib / 1024:.0f} GiB RAM"
        )
    image = made.image.name if made.image else "as it is"
    lines.append(f"  where     {made.region}, image {image}, {made.volume_gb} GB encrypted volume")
    currency = offer.currency if offer else "USD"
    source = f" (price: {offer.price_source})" if offer and offer.price_source else ""
    lines.append(f"  price     {money(made.price_hour, currency)} an hour with volume and address{source}")
    until = f", until {made.deadline:%Y-%m-%d %H:%M} UTC" if made.deadline else ""
    lines.append(f"  lease     {made.lease_hours:.1f} h, at most {money(made.lease_cost, currency)}{until}")
    lines.append("  data      code and dataset go to the machine's own disk, over SSH")
    lines += [
        f"  {'create' if n == 0 else '      '}    {action.what} ({action.why})"
        for n, action in enumerate(made.actions)
    ]
    return lines + [f"  note      {note}" for note in made.notes]


def waterfall(shown: Waterfall, *, width: int = 32) -> list[str]:
    """Return a bar a stage, with a star on those that the end waited for."""
    total = shown.total_s or 1.0
    name_width = max((len(stage.stage) for stage in shown.stages), default=0)
    lines: list[str] = []
    for stage in shown.stages:
        start = round(stage.start / total * width)
        length = max(1, round(stage.seconds / total * width))
        bar = (" " * start + "#" * length)[:width].ljust(width)
        star = "*" if stage.stage in shown.critical else " "
        failed = "" if stage.ok else "  failed"
        lines.append(
            f"{star} {stage.stage.ljust(name_width)}  {bar}  {duration(stage.seconds):>9}  {stage.outcome}{failed}"
        )
    return [
        *lines,
        f"  {'total'.ljust(name_width)}  {' ' * width}  {duration(shown.total_s):>9}  (* the end waited for it)",
    ]


def training(status: TrainingStatus) -> list[str]:
    """Return how a training is doing."""
    session = status.session
    ended = f", exit code {session.exit_code}" if session.exit_code is not None else ""
    lines = [f"training    session {session.number:03d} is {session.state}{ended}"]
    if status.epoch is not None:
        of = f" of {status.epochs}" if status.epochs else ""
        lines.append(f"epoch       {status.epoch}{of}  {metrics(status.metrics)}")
    if status.checkpoint_age_s is not None:
        lines.append(f"checkpoint  {status.checkpoint or 'newest'}, {duration(status.checkpoint_age_s)} old")
    if status.last_line:
        lines.append(f"last line   {status.last_line[:120]}")
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
    return f"{one.path}  {size(one.size)}, whole{epoch}{said}{new}"
