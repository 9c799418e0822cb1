"""Weights and results on their way home.

List, fetch what is not here yet, prove, rename; a checkpoint that is just being
written is tried again, and the last good one stays until a whole one replaces it.
Nothing is unpickled: epoch and metrics come from results.csv.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cloudtrain.errors import CloudtrainError, TornCheckpoint, TransferError
from cloudtrain.events import Note, Reporter
from cloudtrain.models.training import Artifact
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer import secured
from cloudtrain.transfer.earlier import settle
from cloudtrain.transfer.fetch import Fetch
from cloudtrain.transfer.index import Index
from cloudtrain.transfer.listing import Found, Wanted, list_files
from cloudtrain.transfer.parts import forget_others
from cloudtrain.transfer.results import Row, best_row, parse_results
from cloudtrain.transfer.room import cannot_write, writing
from cloudtrain.transfer.wire import Meter

ROUNDS = 4


def pull(
    remote: Remote,
    run_dir: str,
    log: str,
    destination: Path,
    reporter: Reporter,
    *,
    kind: Literal["yolo", "yolov5", "script"],
    project: str,
    outputs: tuple[str, ...] = (),
    everything: bool = False,
    pause: Callable[[float], object] = time.sleep,
) -> tuple[Artifact, ...]:
    """Bring a session's newest weights and results to `destination`; return all that is there.

    Kind `script` brings what `outputs` match in `project` and is newer than the
    session, to `outputs/`, and all of `run_dir`. Files that are here already are
    returned with `fetched` False. A checkpoint that is not whole is never accepted: the
    one from before stays and is returned, with a warning; `TornCheckpoint` only
    when there is none at home at all. `ConnectError` when the line breaks: what was
    accepted until then is kept. `pause` waits between tries, in seconds.
    """
    wanted = Wanted(run_dir, log, kind, project, outputs, everything)
    with _alone(destination):
        index = Index(destination)
        fetched: set[str] = set()
        found: tuple[Found, ...] = ()
        refused: set[Found] = set()
        plain: set[str] = set()
        for number in range(ROUNDS):
            found = list_files(remote, wanted)
            todo = tuple(one for one in found if not _at_home(one, index, fetched))
            fresh = tuple(one for one in todo if one not in refused)  # torn and unchanged stays torn
            came = _fetch_all(remote, fresh, destination, index, reporter)
            # One that grows was rewritten: the next round takes nothing from the copy here.
            refused = {one for one in todo if one.name not in came and not one.grows}
            plain = _describe(found, came | plain, destination, index, kind)
            with writing(destination):
                kept = settle(destination, index)
            for said in kept:
                reporter.emit(Note(said, "warning"))
            fetched |= came
            if all(one.name in fetched for one in todo):
                break
            if number + 1 < ROUNDS:
                pause(0.25 * 2**number)
        found += _secured_instead(remote, wanted, found, refused, destination, index, reporter, fetched)
        index.save()
        with writing(destination):
            forget_others(destination, [])
        _warn(found, fetched, index, reporter)
        return _artifacts(found, fetched, destination, index)


def newest_unproven(
    remote: Remote,
    run_dir: str,
    destination: Path,
    *,
    kind: Literal["yolo", "yolov5", "script"],
    project: str,
    outputs: tuple[str, ...] = (),
    log: str = "",
    finished: bool = False,
) -> tuple[str, ...]:
    """Return the machine's newest checkpoints that are not proven at home; one round trip.

    The arguments are those of `pull`; of a session that `finished` nothing was cut off, so a
    torn checkpoint there is news. Nothing is fetched or written.
    """
    index = Index(destination)
    found = list_files(remote, Wanted(run_dir, log, kind, project, outputs, everything=False))
    declared = [one for one in found if one.weights or one.name.startswith("outputs/")]
    left = [one for one in declared if not _at_home(one, index, set())]
    # What was cut off for ever has a whole copy from just before, which is here.
    if not finished:
        left = [one for one in left if not index.torn(one.name, one.remote, one.size, one.mtime)]
    return tuple(one.remote for one in left)


def _secured_instead(
    remote: Remote,
    wanted: Wanted,
    found: tuple[Found, ...],
    refused: set[Found],
    destination: Path,
    index: Index,
    reporter: Reporter,
    fetched: set[str],
) -> tuple[Found, ...]:
    """Bring a torn checkpoint's own newest secured copy; the trainer may be gone for good."""
    torn = [one for one in found if one.weights and one in refused]
    if not torn or not wanted.log:
        return ()
    listed = list_files(remote, replace(wanted, secured=secured.folder_of(wanted.log)))
    copies = {one: secured.named(listed, secured.standing_for(one, wanted)) for one in torn}
    names = {copy.name for some in copies.values() for copy in some}

    def bring(wanted_names: set[str]) -> None:
        todo = (one for one in listed if one.name in wanted_names and not _at_home(one, index, fetched))
        fetched.update(_fetch_all(remote, tuple(todo), destination, index, reporter))

    bring({f"{name}.json" for name in names})
    known = {name: secured.sidecar(destination, name) for name in names if index.record(f"{name}.json")}
    sources = {name: secured.source_in(said) for name, said in known.items()}
    own = {
        one: secured.own_copy(secured.standing_for(one, wanted), copies[one], sources, found, wanted.log)
        for one in torn
    }
    chosen = {copy.name for copy in own.values() if copy is not None}
    bring(chosen)
    for one, copy in own.items():
        if copy is not None and _at_home(copy, index, fetched):
            index.refuse(one.name, one.remote, one.size, one.mtime, copy.name)
            _describe_copy(copy.name, known.get(copy.name, {}), index)
    return tuple(one for one in listed if one.name.removesuffix(".json") in chosen)


def _describe_copy(name: str, known: dict[str, Any], index: Index) -> None:
    """Note a secured copy's epoch and metrics, which its sidecar says."""
    epoch, metrics = known.get("epoch"), known.get("metrics")
    if known and index.record(name) is not None:
        index.describe(name, epoch if isinstance(epoch, int) else None, metrics or {})


@contextmanager
def _alone(destination: Path) -> Generator[None]:
    """Let one fetch at a time write to a destination: `run` and `fetch-weights` may meet."""
    from filelock import FileLock, Timeout

    lock = FileLock(destination / ".fetch.lock")
    try:
        destination.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=600)
    except Timeout as error:
        raise TransferError(
            f"another fetch to `{destination}` has not ended for ten minutes",
            hint="end the other cloudtrain, or wait for it",
        ) from error
    except OSError as error:
        raise cannot_write(error, destination) from error
    try:
        yield
    finally:
        lock.release()


def _at_home(one: Found, index: Index, fetched: set[str]) -> bool:
    """Whether nothing has to move: a growing file that this pull brought once is enough."""
    if one.grows and one.kind != "results" and one.name in fetched:
        return True
    return index.proves(one.name, one.remote, one.size, one.mtime)


def _fetch_all(
    remote: Remote, todo: tuple[Found, ...], destination: Path, index: Index, reporter: Reporter
) -> set[str]:
    if not todo:
        return set()
    meter = Meter(reporter, "fetch", sum(one.size for one in todo), files=len(todo))
    fetch = Fetch(remote, destination, index, meter)
    try:
        accepted = fetch.run(todo)
    except CloudtrainError:
        with suppress(CloudtrainError):  # a lost record costs a fetch; what went wrong first is to be told
            index.save()
        raise
    index.save()
    meter.finish()
    return accepted


def _describe(
    found: tuple[Found, ...],
    came: set[str],
    destination: Path,
    index: Index,
    kind: Literal["yolo", "yolov5", "script"],
) -> set[str]:
    """Note epoch and metrics of every checkpoint that came, from the table as it was listed.

    Return all that came when the table was refused: what is here then says nothing of them.
    """
    table = next((one for one in found if one.kind == "results"), None)
    if table is None:
        return set()
    if table.name not in came and not _at_home(table, index, came):
        return came
    if index.record(table.name) is None:
        return set()
    text = (destination / table.name).read_bytes()[: table.size].decode("utf-8", "replace")
    rows = parse_results(text, kind)
    for one in found:
        if one.kind in ("best", "last") and (one.name in came or _untold(one, index)):
            # A row comes before its checkpoint: a file older than the table is not of the last row.
            row = _row_of(one, rows if float(one.mtime) >= float(table.mtime) else rows[:-1], kind)
            if row is not None:
                index.describe(one.name, row.epoch, row.metrics)
    return set()


def _untold(one: Found, index: Index) -> bool:
    """Whether a fetch that was killed brought this checkpoint, and could not tell its epoch any more."""
    record = index.record(one.name)
    return record is not None and record.epoch is None and _at_home(one, index, set())


def _row_of(one: Found, rows: tuple[Row, ...], kind: Literal["yolo", "yolov5", "script"]) -> Row | None:
    if one.kind == "best":
        return best_row(rows, kind)
    return rows[-1] if rows else None


def _warn(found: tuple[Found, ...], fetched: set[str], index: Index, reporter: Reporter) -> None:
    """Say which files were not to be had whole; raise when that leaves no checkpoint at all."""
    torn = [one for one in found if not _at_home(one, index, fetched) and one.name not in fetched]
    for one in torn:
        kept = index.record(one.name)
        epoch = f" of epoch {kept.epoch}" if kept is not None and kept.epoch is not None else ""
        rest = f"the last good one{epoch} stays" if kept is not None else "it was left on the machine"
        reporter.emit(Note(f"`{one.name}` is not whole on the machine now; {rest}", "warning"))
    missing = [one.name for one in torn if one.weights]
    if missing and not any(one.weights and index.record(one.name) for one in found):
        raise TornCheckpoint(
            f"no checkpoint is whole on the machine: {', '.join(f'`{name}`' for name in missing)}",
            hint="one is written after every epoch: run `cloudtrain fetch-weights` again",
        )


def _artifacts(
    found: tuple[Found, ...], fetched: set[str], destination: Path, index: Index
) -> tuple[Artifact, ...]:
    artifacts: list[Artifact] = []
    for one in found:
        record = index.record(one.name)
        if record is None:
            continue
        artifacts.append(
            Artifact(
                kind=one.kind,
                path=destination / one.name,
                remote=one.remote,
                size=record.size,
                sha256=record.sha256,
                complete=True,
                epoch=record.epoch,
                metrics=record.metrics,
                fetched=one.name in fetched,
                behind=one.name not in fetched and not _at_home(one, index, fetched),
            )
        )
    return tuple(artifacts)
