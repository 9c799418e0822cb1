"""`fetch-weights`: the newest checkpoints and results, home and proven whole."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudtrain import training
from cloudtrain.errors import (
    AuthenticationFailed,
    ConnectError,
    EndedError,
    HostKeyMismatch,
    TornCheckpoint,
    TransferError,
    UsageError,
)
from cloudtrain.events import Note, Reporter, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.journal.log import brought_home
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Artifact, Session
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.pull import newest_unproven, pull
from cloudtrain.workflows.context import artifacts_of, connect_run, layout_on
from cloudtrain.workflows.holding import holding, proving
from cloudtrain.workflows.outlook import Outlook

WATCH_S = 5.0
"""Seconds between two looks of `--watch`."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is at home now, of which session."""

    run: str
    session: Session
    folder: str
    artifacts: tuple[Artifact, ...]

    @property
    def checkpoints(self) -> tuple[Artifact, ...]:
        """Only the checkpoints among them."""
        return tuple(a for a in self.artifacts if a.kind in ("best", "last", "checkpoint"))


def fetch(folder: RunFolder, config: Config, timeline: Timeline, *, everything: bool) -> Fetched:
    """Fetch the newest session's files once. Raises `UsageError` when there is no session."""
    with connect_run(folder) as remote:
        return fetch_over(remote, folder, config, timeline, everything=everything)


def fetch_over(
    remote: Remote, folder: RunFolder, config: Config, timeline: Timeline, *, everything: bool = False
) -> Fetched:
    """Fetch over a connection that is open already."""
    layout = layout_on(remote, folder)
    found = training.sessions(remote, layout)
    if not found:
        raise UsageError("no training was ever started on this machine", hint="`cloudtrain train` starts one")
    with holding(remote, layout, "fetching"), proving(remote, layout) as mark:
        fetched = _fetch_session(remote, folder, config, timeline, layout, found[-1], everything=everything)
        if found[-1].state != "running" and not unproven_checkpoints(remote, folder, config):
            mark()
            _note_home(folder, found[-1])
    return fetched


def fetch_all_sessions(
    remote: Remote, folder: RunFolder, config: Config, timeline: Timeline
) -> tuple[Fetched, ...]:
    """Fetch every session's newest checkpoints: what `down` must not lose.

    One that cannot be fetched holds up none of the others; the first such error is raised at the end.
    """
    layout = layout_on(remote, folder)
    with holding(remote, layout, "fetching"), proving(remote, layout) as mark:
        found = training.sessions(remote, layout)
        fetched: list[Fetched] = []
        errors: list[TransferError] = []
        for session in found:
            try:
                fetched.append(
                    _fetch_session(remote, folder, config, timeline, layout, session, everything=False)
                )
            except TransferError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        if not unproven_checkpoints(remote, folder, config):
            mark()
            if found:
                _note_home(folder, found[-1])
    return tuple(fetched)


def _note_home(folder: RunFolder, newest: Session) -> None:
    """Write down that a training's end is at home, so that nobody trains it again when its machine is gone."""
    number, code = newest.number, newest.exit_code
    if code is not None and brought_home(folder.journal.rows()) != (number, code):
        folder.journal.append("home", session=number, exit_code=code)


def unproven_checkpoints(remote: Remote, folder: RunFolder, config: Config) -> tuple[str, ...]:
    """Return the machine's newest checkpoints, of every session, that are not proven at home."""
    layout = layout_on(remote, folder)
    found: list[str] = []
    for session in training.sessions(remote, layout):
        found += newest_unproven(
            remote,
            session.run_dir,
            artifacts_of(folder, session.number),
            kind=config.train.kind,
            project=layout.project,
            outputs=config.train.patterns,
            log=session.log,
            finished=session.state == "finished",
        )
    return tuple(found)


def watch(
    folder: RunFolder,
    config: Config,
    timeline: Timeline,
    reporter: Reporter,
    *,
    everything: bool = False,
    max_age_s: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Fetched:
    """Keep fetching until the session ends; a dropped line is connected again, an interrupted one waited for.

    The copy at home is at most `max_age_s` seconds behind the machine: it is looked at often
    enough for that, and when that cannot be kept a warning says so, and again when it can.
    Raises `HostKeyMismatch`, `AuthenticationFailed` and `EndedError` at once: no later try ends otherwise;
    so does a torn checkpoint (`TornCheckpoint`) once nobody writes another.
    """
    age = Age(max_age_s, reporter, clock)
    pause = min(WATCH_S, max_age_s / 4)
    outlook, told, troubled = Outlook(), False, ""
    while True:
        try:
            with connect_run(folder) as remote:
                while True:
                    began = clock()
                    with age.watched(pause):
                        fetched = fetch_over(remote, folder, config, timeline, everything=everything)
                    if any(one.behind for one in fetched.checkpoints):
                        age.look()
                    else:
                        age.proven(began)
                    troubled = ""
                    interrupted = fetched.session.state == "interrupted"
                    if interrupted and not told:
                        reporter.emit(Note("the training was interrupted; it is waited for"))
                    told = interrupted
                    running = fetched.session.state == "running"
                    if not running and not (interrupted and _goes_on(remote, folder, config, outlook)):
                        return fetched
                    sleep(pause)
        except (HostKeyMismatch, AuthenticationFailed, EndedError):
            raise
        except (ConnectError, TransferError) as error:
            if isinstance(error, TornCheckpoint) and _is_over(folder, config, outlook):
                raise
            if error.message != troubled:
                reporter.emit(Note(f"{error.message}; trying again", level="warning"))
            troubled = error.message
            age.look()
            sleep(pause)


def _is_over(folder: RunFolder, config: Config, outlook: Outlook) -> bool:
    """Whether nothing trains on the machine, and nothing will."""
    try:
        with connect_run(folder) as remote:
            status = training.status(remote, layout_on(remote, folder), config)
    except ConnectError:
        return False
    return status is None or (status.session.state != "running" and outlook.over(status))


def _goes_on(remote: Remote, folder: RunFolder, config: Config, outlook: Outlook) -> bool:
    """Whether a training that does not run now will: a guard goes on with it, or has begun to."""
    status = training.status(remote, layout_on(remote, folder), config)
    return status is not None and not outlook.over(status)


class Age:
    """How far the copy at home is behind: the time since a look that found everything here."""

    def __init__(self, bound_s: float, reporter: Reporter, clock: Callable[[], float]) -> None:
        self._bound, self._reporter, self._clock = bound_s, reporter, clock
        self._at = clock()
        self._late = False
        self._lock = threading.Lock()

    def proven(self, began: float) -> None:
        """A fetch that began then has brought everything that was there then."""
        with self._lock:
            now = self._clock()
            took, age = now - began, now - self._at  # until now the copy was the one of the look before
            self._at = began
            if self._late and age <= self._bound:
                self._late = False
                self._reporter.emit(Note("the copy here is up to date again"))
            elif took > self._bound:
                self._warn(f"one fetch takes {took:.0f} s: the copy here is older than {self._bound:.0f} s")
            elif age > self._bound:
                self._warn(f"the copy here was {age:.0f} s old, more than the {self._bound:.0f} s asked for")

    def look(self) -> None:
        """Nothing was fetched: say once when the bound is passed."""
        with self._lock:
            age = self._clock() - self._at
            if age > self._bound:
                self._warn(f"the copy here is {age:.0f} s old, more than the {self._bound:.0f} s asked for")

    @contextmanager
    def watched(self, every_s: float) -> Generator[None]:
        """Look so often while the block runs: a fetch may stand still."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(every_s):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _warn(self, text: str) -> None:
        if not self._late:
            self._reporter.emit(Note(text, "warning", hint="`cloudtrain status` asks how the machine is"))
        self._late = True


def check_destination(folder: Path) -> None:
    """Raise `UsageError` when checkpoints cannot be copied to `folder`; ask before fetching."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise UsageError(f"`{existing}` is a file: checkpoints are copied to a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"`{existing}` cannot be written to", hint="name another folder")


def copy_to(fetched: Fetched, folder: Path) -> None:
    """Copy the proven checkpoints to a folder of the user's, each through a part file.

    Those of one name keep the folders they lie in (`outputs/a/best.pt`).
    Raises `TransferError` when the disk refuses; what was there before stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = Counter(artifact.path.name.casefold() for artifact in fetched.checkpoints)
        for artifact in fetched.checkpoints:
            alone = names[artifact.path.name.casefold()] == 1
            name = artifact.path.name if alone else artifact.path.relative_to(fetched.folder)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.part")
            try:
                shutil.copyfile(artifact.path, part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise TransferError(
            f"the checkpoints could not be copied to `{folder}`: {error}",
            hint=f"they are safe in `{fetched.folder}`",
        ) from error


def _fetch_session(
    remote: Remote,
    folder: RunFolder,
    config: Config,
    timeline: Timeline,
    layout: Layout,
    session: Session,
    *,
    everything: bool,
) -> Fetched:
    destination = artifacts_of(folder, session.number)
    with timeline.stage("fetch", f"session {session.number:03d}") as stage:
        artifacts = pull(
            remote,
            session.run_dir,
            session.log,
            destination,
            timeline.reporter,
            kind=config.train.kind,
            project=layout.project,
            outputs=config.train.patterns,
            everything=everything,
        )
        moved = [a for a in artifacts if a.fetched]
        size = sum(a.size for a in moved) / 1e6
        stage.outcome = f"{len(moved)} of {len(artifacts)} files, {size:.1f} MB" if moved else "nothing new"
    return Fetched(folder.path.name, session, str(destination), artifacts)
