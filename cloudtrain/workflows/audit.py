"""`audit`: what the cloud holds of ours, whether this computer knows it or not, and its removal.

Removal is careful where the sweep is broad: only what is the caller's own goes by
itself, and no machine goes whose training runs or whose checkpoints are not at home.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cloudtrain.errors import CloudError, CloudtrainError, RefusedError, UsageError
from cloudtrain.events import Timeline
from cloudtrain.journal.folder import RunFolder, open_runs
from cloudtrain.models.account import Sweep
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Found
from cloudtrain.providers.base import Identity, Provider


@dataclass(frozen=True, slots=True)
class Item:
    """One thing found. `known` says that an open run of this computer owns it.

    `remove` is the exact command that removes it.
    """

    found: Found
    known: bool
    remove: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """Everything found, what it costs a month, and the runs here that nothing was found of.

    `price_month` counts what has a known price; `missing` names what did not tell.
    """

    regions: tuple[str, ...]
    items: tuple[Item, ...]
    price_month: float
    currency: str
    known: tuple[str, ...]
    unseen: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deletion:
    """What was removed, and what stays with the reason."""

    removed: tuple[Found, ...]
    kept: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleting:
    """What `audit --delete` is told. No ids means everything of the caller's own."""

    ids: tuple[str, ...] = ()
    discard: bool = False


def audit(provider: Provider, regions: tuple[str, ...] | None = None) -> Audit:
    """Look everywhere, and join what is found with the runs that this computer remembers."""
    identity = provider.identity()
    swept = provider.sweep(identity.owner, regions)
    deaf = tuple(name for name in swept.regions if any(f"anything in {name} (" in m for m in swept.missing))
    if deaf and len(deaf) == len(swept.regions):
        raise CloudError(
            f"nobody told what exists: {'; '.join(swept.missing)}",
            hint="that is not the same as nothing; `cloudtrain doctor` says what is the matter",
        )
    folders = {folder.path.name: folder for folder in _readable(open_runs())}
    items = tuple(_item(one, swept, folders, provider.name) for one in _ordered(swept.found))
    here = {name for name, folder in folders.items() if _looked_for(folder, provider.name, identity, swept)}
    seen = {one.run for one in swept.found}
    return Audit(
        regions=swept.regions,
        items=items,
        price_month=sum(one.price_month or 0.0 for one in swept.found),
        currency=next((one.currency for one in swept.found), "USD"),
        known=tuple(folders),
        unseen=tuple(sorted(here - seen)),
        missing=swept.missing,
    )


def _looked_for(folder: RunFolder, provider: str, identity: Identity, swept: Sweep) -> bool:
    """Whether a run would have shown: only then does its absence mean anything."""
    record = folder.record()
    same = record.provider == provider and record.account in (None, identity.account)
    untold = any(text.startswith(f"{what} in {record.region} (") for what in _WHAT for text in swept.missing)
    return same and record.region in swept.regions and not untold


_WHAT = ("anything", "instances")


def _readable(folders: Sequence[RunFolder]) -> list[RunFolder]:
    return [folder for folder in folders if folder.record().provider in ("aws", "sandbox")]


_ORDER = ("instance", "spot-request", "volume", "address", "interface", "snapshot", "image")


def _ordered(found: tuple[Found, ...]) -> list[Found]:
    """Sort by region, owner and run; what costs most comes first within a run."""

    def key(one: Found) -> tuple[str, bool, str, int]:
        rank = _ORDER.index(one.kind) if one.kind in _ORDER else len(_ORDER)
        return one.region, not one.mine, one.run, rank

    return sorted(found, key=key)


def _item(one: Found, swept: Sweep, folders: dict[str, RunFolder], provider: str) -> Item:
    folder = folders.get(one.run)
    known = one.mine and folder is not None and folder.record().owner == one.owner
    return Item(one, known, _command(one, provider, known=known), _note(one, swept))


def _command(one: Found, provider: str, *, known: bool) -> str:
    if known:
        return f"cloudtrain down --name {one.run.rpartition('-')[0]}"
    where = " --provider sandbox" if provider == "sandbox" else ""
    return f"cloudtrain audit{where} --region {one.region} --delete {one.id}"


def _note(one: Found, swept: Sweep) -> str:
    """Say what the state alone does not tell: what a spot request is up to, and that images were made on purpose."""
    every = swept.found
    if one.kind == "image":
        return "baked; `cloudtrain images --prune` removes those that a newer one has replaced"
    if one.kind != "spot-request":
        return ""
    if any(f"instances in {one.region} (" in text for text in swept.missing):
        return "whether it has a machine was not told"
    machine = next((m for m in every if m.kind == "instance" and m.id == one.machine), None)
    if machine is None:
        return "will launch a machine when there is capacity"
    if machine.state in ("stopped", "stopping"):
        return f"may start {machine.id} again; cancelling it ends that machine and its disk"
    return f"launches {machine.id} anew should it end before the request is cancelled"


def choose(found: Audit, deleting: Deleting) -> tuple[Found, ...]:
    """Return what is to be removed, with everything that must go along.

    Raises `UsageError` for an id that was not found. What is somebody else's is
    chosen only by its id, and so is an image with its snapshots: it was made to be kept.
    """
    every = [item.found for item in found.items]
    unknown = set(deleting.ids) - {one.id for one in every}
    if unknown:
        raise UsageError(
            f"nothing of cloudtrain's has the id {', '.join(sorted(unknown))} in {', '.join(found.regions)}",
            hint="`cloudtrain audit` lists what there is; `--region` says where to look",
        )
    if not deleting.ids:
        return tuple(one for one in every if one.mine and one not in _baked(found))
    chosen = [one for one in every if one.id in deleting.ids]
    ending = {one.id for one in chosen if one.kind == "instance"}
    # The request of a machine that is to end must go first, or AWS launches it anew.
    requests = [
        one for one in every if one.kind == "spot-request" and one.machine in ending and one not in chosen
    ]
    return (*chosen, *requests)


def spared(found: Audit, deleting: Deleting) -> tuple[tuple[str, str], ...]:
    """Return the ids that `--delete` leaves alone because they were made to be kept, each with the reason."""
    why = "made to be kept: delete it by its id, or with `cloudtrain images --prune`"
    return () if deleting.ids else tuple((one.id, why) for one in _baked(found))


def _baked(found: Audit) -> tuple[Found, ...]:
    """Return the caller's images and their snapshots."""
    mine = [item.found for item in found.items if item.found.mine]
    baked = {one.run for one in mine if one.kind == "image"}
    return tuple(one for one in mine if one.kind in ("image", "snapshot") and one.run in baked)


def delete(
    provider: Provider,
    found: Audit,
    deleting: Deleting,
    timeline: Timeline,
    config_of: Callable[[RunFolder], Config],
) -> Deletion:
    """Remove what was chosen, in a safe order; a machine only when nothing is lost with it.

    Raises `RefusedError` when nothing at all may be removed, and `CloudError` when
    the cloud refuses. Twice is harmless.
    """
    chosen = choose(found, deleting)
    with ExitStack() as locks:
        kept = _kept(provider, chosen, found, deleting, timeline, config_of, locks)
        done = _remove(provider, chosen, kept, found, timeline)
    return replace(done, kept=(*done.kept, *spared(found, deleting)))


def _remove(
    provider: Provider, chosen: tuple[Found, ...], kept: dict[str, str], found: Audit, timeline: Timeline
) -> Deletion:
    going = _going(chosen, kept, found)
    if kept and not going:
        reasons = "\n".join(f"{name}: {why}" for name, why in kept.items())
        raise RefusedError(
            f"nothing was removed\n{reasons}",
            hint="bring its checkpoints home first, or give them up: `cloudtrain audit --delete --discard`",
        )
    with timeline.stage("remove", f"{len(going)} things") as stage:
        provider.remove(going)
        stage.outcome = f"{len(going)} removed"
    return Deletion(going, tuple(kept.items()))


def _going(chosen: tuple[Found, ...], kept: dict[str, str], found: Audit) -> tuple[Found, ...]:
    """Leave out what belongs to a machine or a run that stays."""
    stays = {item.found.machine for item in found.items if item.found.id in kept and item.found.machine}
    runs = {(item.found.run, item.found.owner) for item in found.items if item.found.id in kept}
    going: list[Found] = []
    for one in chosen:
        if one.id in kept:
            continue
        if one.machine in stays or (one.run, one.owner) in runs:
            kept[one.id] = "it belongs to what is kept"
        else:
            going.append(one)
    attached = {one.machine for one in going if one.kind == "instance"}
    # What goes with its machine is not deleted a second time: its id is gone by then.
    return tuple(
        one for one in going if one.kind not in ("volume", "interface") or one.machine not in attached
    )


def _holds(one: Found, chosen: tuple[Found, ...], found: Audit) -> str:
    """Say which machine still needs a thing, or nothing."""
    going = {other.id for other in chosen}
    if one.kind == "spot-request":
        alive = {item.found.id for item in found.items if item.found.kind == "instance"}
        held = one.machine in alive and one.machine not in going
        return f"cancelling it may end {one.machine}: name that as well" if held else ""
    if one.kind in ("instance", "snapshot", "image"):
        return ""
    for other in (item.found for item in found.items if item.found.kind == "instance"):
        same_run = (other.run, other.owner, other.region) == (one.run, one.owner, one.region)
        if same_run and other.id not in going:
            return f"{other.id} still needs it: name that as well"
    return ""


def _kept(
    provider: Provider,
    chosen: tuple[Found, ...],
    found: Audit,
    deleting: Deleting,
    timeline: Timeline,
    config_of: Callable[[RunFolder], Config],
    locks: ExitStack,
) -> dict[str, str]:
    """Return what stays, with the reason. The locks of the runs that end keep trainings from beginning."""
    folders = {folder.path.name: folder for folder in _readable(open_runs())}
    kept: dict[str, str] = {}
    for one in chosen:
        folder = folders.get(one.run)
        if one.kind == "instance" and folder is not None and folder.record().owner == one.owner:
            locks.enter_context(folder.changing())
        why = _holds(one, chosen, found)
        if not (why or deleting.discard):
            why = _loses(one, chosen, provider, timeline, config_of)
        if why:
            kept[one.id] = why
    return kept


def _loses(
    one: Found,
    chosen: tuple[Found, ...],
    provider: Provider,
    timeline: Timeline,
    config_of: Callable[[RunFolder], Config],
) -> str:
    """Say what would be lost with a thing, or nothing."""
    machines = {other.id: other for other in chosen if other.kind == "instance"}
    if one.kind in ("volume", "snapshot", "image"):
        attached = one.kind == "volume" and one.machine in machines
        return "" if attached else "nobody can say what is on it"
    if one.kind != "instance":
        return ""
    folder = next((f for f in _readable(open_runs()) if f.path.name == one.run), None)
    if folder is None or folder.record().owner != one.owner:
        return "this computer does not know its run, so its checkpoints cannot be proven"
    return _unproven(one, folder, provider, timeline, config_of(folder))


def _unproven(one: Found, folder: RunFolder, provider: Provider, timeline: Timeline, config: Config) -> str:
    """Bring its checkpoints home and prove them; say why that cannot be done.

    The machine itself is asked, never only this computer's journal: another one may have
    taken the run over and trained there.
    """
    from cloudtrain import training
    from cloudtrain.workflows.context import connect_run, layout_on, with_way_in
    from cloudtrain.workflows.fetch import fetch_all_sessions, unproven_checkpoints

    folder = with_way_in(folder, config, lambda: provider, timeline.reporter)
    if one.state != "running":
        return f"it is {one.state}: `cloudtrain down --name {folder.record().name}` starts it and looks"
    try:
        with connect_run(folder) as remote:
            sessions = training.sessions(remote, layout_on(remote, folder))
            if any(session.state == "running" for session in sessions):
                return "a training runs on it"
            fetch_all_sessions(remote, folder, config, timeline)
            unproven = unproven_checkpoints(remote, folder, config)
            if unproven:
                return f"the newest checkpoint is not whole on it: {', '.join(unproven)}"
    except CloudtrainError as error:
        return f"its checkpoints are not proven at home: {error.message}"
    return ""
