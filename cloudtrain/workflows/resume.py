"""`up --resume`: go on elsewhere, from the furthest copy that is at home."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cloudtrain.errors import RefusedError, UsageError
from cloudtrain.events import Note, Reporter, Timeline
from cloudtrain.journal.folder import RunFolder, all_runs
from cloudtrain.journal.log import Row, brought_home
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Observation
from cloudtrain.models.run import Layout
from cloudtrain.providers.base import Provider
from cloudtrain.provision.end import terminate_all
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.index import Index
from cloudtrain.transfer.push import push_model
from cloudtrain.transfer.results import parse_results
from cloudtrain.workflows.context import Context


@dataclass(frozen=True, slots=True)
class Copy:
    """A checkpoint at home to go on from. `epoch` counts finished epochs, 0 where nobody says.

    `session` is the one that wrote it, of `run`.
    """

    path: Path
    epoch: int
    results: Path | None
    best: Path | None
    run: str
    session: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if self.epoch else f"`{self.path.name}`"


def best_copy(context: Context, folder: RunFolder | None) -> Copy:
    """Return the furthest proven checkpoint at home of the newest session that has one.

    Of this folder's run, or else of its last one: an older session is another training.

    Raises `UsageError` when there is none, and when that training has finished.
    """
    runs = [folder] if folder is not None else []
    runs += [one for one in reversed(all_runs()) if Path(one.record().project) == context.base]
    for run in runs:
        places = sorted(run.artifacts.glob("[0-9]*"), key=lambda place: int(place.name), reverse=True)
        for place in places:
            found = _copies(place, run, context.config)
            if found:
                chosen = max(found, key=lambda one: (one.epoch, one.path.stat().st_mtime))
                _check_unfinished(chosen, context.config, brought_home(run.journal.rows()))
                return chosen
    raise UsageError(
        "there is no checkpoint at home to go on from",
        hint="`cloudtrain up` starts anew; `cloudtrain fetch-weights` brings checkpoints home",
    )


def give_up(context: Context, folder: RunFolder, observed: Observation, chosen: Copy) -> Observation:
    """End the machine that cannot be had back, after a yes, and return what is there then.

    Raises `RefusedError` while it runs: what it has is worth more than what is at home.
    """
    alive = [machine for machine in observed.machines if machine.alive]
    if not alive:
        return observed
    machine = alive[-1]
    if machine.state in ("running", "pending"):
        raise RefusedError(
            f"{machine.id} runs: it has all there is, and goes on by itself",
            hint="`cloudtrain status` shows it; `cloudtrain down` brings its weights home and ends it",
        )
    lost = what_is_lost(folder, chosen, machine)
    context.reporter.emit(Note(f"going on from {chosen} at home; {lost}", level="warning"))
    if not context.confirm(f"Give up {machine.id} and its disk, and go on elsewhere?"):
        raise UsageError("nothing was changed")
    return _ended(folder, observed, context.provider(), context.timeline, machine)


def what_is_lost(folder: RunFolder, chosen: Copy, machine: Machine | None = None) -> str:
    """Say what going on from a copy at home loses of what the machine had.

    `machine` is what the cloud says of it now: it may have been back since it was last watched.
    """
    row: Row | None = folder.journal.last("reclaimed")
    epoch = row.get("epoch") if row else None
    if row is None or not isinstance(epoch, int) or row.get("session", chosen.session) != chosen.session:
        return "what the machine did since is lost"
    at = datetime.fromisoformat(str(row["at"]))
    if chosen.epoch > epoch or (machine is not None and machine.launched > at):
        return "what the machine did since is lost"
    missing = epoch - chosen.epoch
    if missing <= 0:
        return "nothing that was secured is lost"
    return f"{missing} epoch{'s' if missing > 1 else ''} that the machine had secured {'are' if missing > 1 else 'is'} lost"


def place_copy(
    remote: Remote, folder: RunFolder, layout: Layout, chosen: Copy, number: int, reporter: Reporter
) -> str:
    """Push a copy, with its table and its best weights, to where session `number` finds them.

    Returns the checkpoint's path on the machine.
    """
    suffix = chosen.path.suffix
    for path, name in (
        (chosen.path, f"resume-{number:03d}{suffix}"),
        (chosen.best, f"resume-best-{number:03d}.pt"),
    ):
        if path is None:
            continue
        staged = folder.path / "resume" / name
        staged.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, staged)
        push_model(remote, staged, layout, reporter)
        staged.unlink()
    run_dir = layout.run_dir(number)
    models = f"{layout.root}/models"
    if chosen.best is not None:
        best = f"{models}/resume-best-{number:03d}.pt"
        remote.run(
            f"mkdir -p {shlex.quote(run_dir)}/weights && cp -n {shlex.quote(best)} {shlex.quote(run_dir)}/weights/best.pt"
        )
    if chosen.results is not None:
        remote.run(f"mkdir -p {shlex.quote(run_dir)}")
        remote.put(chosen.results.read_bytes(), f"{run_dir}/results.csv", mode=0o644)
    return f"{models}/resume-{number:03d}{suffix}"


def _copies(place: Path, run: RunFolder, config: Config) -> list[Copy]:
    index = Index(place)
    results = place / "results.csv"
    table = results if results.is_file() and config.train.kind != "script" else None
    best = place / "weights" / "best.pt"
    found: list[Copy] = []
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        record = index.record(name) if path.is_file() else None
        if (
            record is None
            or not path.name.endswith((".pt", ".pth", ".pth.tar", ".ckpt", ".safetensors"))
            or path.stem == "best"
        ):
            continue
        known = best if config.train.kind != "script" and index.record("weights/best.pt") else None
        found.append(Copy(path, record.epoch or 0, table, known, run.path.name, int(place.name)))
    return found


def _check_unfinished(chosen: Copy, config: Config, ended: tuple[int, int] | None) -> None:
    """Raise `UsageError` when all is done: resuming such a checkpoint starts something else.

    `ended` is the session that has ended with its result at home, and its exit code.
    """
    if ended == (chosen.session, 0):
        raise UsageError(
            "the training at home has ended by itself, with 0: there is nothing to go on with",
            hint="`cloudtrain up` trains anew; `train.model` may name the weights at home",
        )
    epochs = config.train.args.get("epochs")
    if chosen.results is None or not isinstance(epochs, int):
        return
    rows = parse_results(chosen.results.read_text(errors="replace"), config.train.kind)
    if rows and rows[-1].epoch >= epochs:
        raise UsageError(
            f"the training at home has finished its {epochs} epochs: there is nothing to go on with",
            hint="`cloudtrain up` trains anew; `train.model` may name the weights at home",
        )


def _ended(
    folder: RunFolder, observed: Observation, provider: Provider, timeline: Timeline, machine: Machine
) -> Observation:
    with folder.changing():
        folder.journal.append("given-up", machine=machine.id)
        terminate_all(observed, folder, provider, timeline)
    return provider.observe(folder.run())
