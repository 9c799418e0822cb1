"""Bringing a reachable machine to where training can start.

Installs and pushes run side by side over one connection; a step that needs the
pushed project waits for exactly that.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cloudtrain import bootstrap, facts, training
from cloudtrain.config import dump
from cloudtrain.errors import RefusedError, StepError
from cloudtrain.events import Note, Reporter
from cloudtrain.guard import host_config
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.config import Config
from cloudtrain.models.lent import Lent
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.models.training import PushReport, Session, StepReport
from cloudtrain.provision.hosts import deadline_of
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.dataset import DatasetSource
from cloudtrain.transfer.push import push_dataset, push_model, push_project
from cloudtrain.transfer.questions import ask_about
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.told import Told
from cloudtrain.workflows.context import Context, layout_of, over
from cloudtrain.workflows.converged import converged
from cloudtrain.workflows.holding import holding

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Side:
    """Work side by side, in threads of its own."""

    pool: ThreadPoolExecutor
    begun: list[Future[Any]] = field(default_factory=list[Future[Any]])

    def begin(self, work: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> Future[_T]:
        future = self.pool.submit(work, *args, **named)
        self.begun.append(future)
        return future


@dataclass(frozen=True, slots=True)
class Settled:
    """A machine that is ready, and what it took."""

    facts: Facts
    layout: Layout
    python: str
    steps: tuple[StepReport, ...]
    pushes: tuple[PushReport, ...]

    @property
    def changed(self) -> bool:
        """Whether any step or push changed something."""
        return any(s.outcome == "changed" for s in self.steps) or any(p.sent_files for p in self.pushes)


def settle(
    context: Context, remote: Remote, folder: RunFolder, source: DatasetSource | None, *, push: bool = True
) -> Settled:
    """Converge the machine's steps while code, dataset and model are pushed.

    Raises `StepError` or `TransferError`; the other side is let finish first, so
    that the next command finds its work done. An interrupt ends everything, and closes `remote`.
    """
    if push and context.ask is not None:
        ask_about(context.config, context.base, context.ask)
    with context.timeline.stage("facts") as stage:
        found = facts.gather(remote)
        stage.outcome = f"{found.os_id} {found.os_version}, {len(found.gpus)} GPU"
    layout = layout_of(folder, found.home)
    ready = threading.Event()
    with (
        holding(remote, layout, "working"),
        _together(remote) as side,
    ):
        code = side.begin(_push_project, context, remote, layout, ready) if push else None
        if code is None:
            ready.set()
        # For a second computer, which finds the machine by its tags and knows nothing else of it.
        config = json.dumps(dump(context.config)).encode()
        kept = side.begin(remote.put, config, f"{layout.root}/config.json") if push else None
        data = side.begin(_push_data, context, remote, layout, source) if push and source else None
        reports = side.begin(
            converged,
            remote,
            lambda seen: bootstrap.steps(context.config, seen, layout),
            found,
            layout,
            context.timeline,
            ready=ready,
            drained=lambda: _drained(remote, layout, code, kept, data),
            ours=context.config.provider != "ssh",
        )
    if kept:
        kept.result()
    pushes = [*(code.result() if code else ()), *(data.result() if data else ())]
    done = reports.result()
    if any(report.outcome == "changed" for report in done):
        found = facts.gather(remote)  # a driver, a screen: a session must not start as if they were not there
    python = bootstrap.environment_python(context.config, found, layout)
    settled = Settled(found, layout, python, done, tuple(pushes))
    if push:
        _say_limits(context, settled)
    return settled


@contextmanager
def _together(remote: Remote) -> Generator[_Side]:
    """Yield what begins work; all of it is let finish, whatever one part raises. An interrupt ends it."""
    with ThreadPoolExecutor(5, thread_name_prefix="settle") as pool:
        side = _Side(pool)
        try:
            yield side
            wait(side.begun)  # not by a join: Python takes a thread whose join was interrupted for ended
        except BaseException:
            remote.close()  # they end when nothing that they wait for can come any more
            wait(side.begun)
            raise


def _say_limits(context: Context, settled: Settled) -> None:
    """Say what was left to the machine's owner, and what is lost on a machine of one's own."""
    for text in bootstrap.refusals(settled.steps):
        context.reporter.emit(Note(text, level="warning"))
    if context.config.provider == "ssh":
        for text in bootstrap.limits(settled.facts):
            context.reporter.emit(Note(text))


def _drained(remote: Remote, layout: Layout, *pushes: Future[Any] | None) -> None:
    """Wait until nothing is sent any more, however that ended. Raises `StepError` for a training."""
    wait([push for push in pushes if push is not None])
    busy = [session for session in training.sessions(remote, layout) if session.state == "running"]
    if busy:
        raise StepError(
            f"the machine must reboot, and session {busy[0].number:03d} is running on it",
            hint="`cloudtrain up` again when it has finished, or stop it first",
        )


def start_session(
    context: Context,
    remote: Remote,
    folder: RunFolder,
    settled: Settled,
    *,
    number: int,
    model: str | None = None,
    resume_from: str | None = None,
) -> Session:
    """Start session `number` under screen; `model` overrides the configured one.

    `resume_from` is a checkpoint on the machine to go on from. Raises `RefusedError` when the
    lease on a machine of the user's own has ended, and what `training.start` raises.
    """
    _check_lease(folder)
    layout = settled.layout
    dataset = context.config.dataset
    given = dataset.path or dataset.source or dataset.command
    data_yaml = f"{layout.data}/data.yaml" if given else None
    with context.timeline.stage("start training") as stage:
        folder.journal.append("session", number=number)
        session = training.start(
            remote,
            context.config,
            layout,
            slug=folder.path.name,
            python=settled.python,
            number=number,
            dataset_yaml=data_yaml,
            model=model or _model(context, layout),
            facts=settled.facts,
            resume_from=resume_from,
            guard=_guard(folder, layout, context.config),
        )
        stage.outcome = f"session {number:03d}"
    return session


def _guard(folder: RunFolder, layout: Layout, config: Config) -> dict[str, object] | None:
    """Return the config of the guard beside the session on a machine of the user's own; ours have one."""
    record = folder.record()
    if not record.own:
        return None
    if record.deadline is None:  # it may have been given since the host was taken
        until = deadline_of(config, record.price_hour, datetime.now(UTC))
        record = folder.update(deadline=until) if until else record
    deadline = datetime.fromisoformat(record.deadline) if record.deadline else None
    return host_config(layout, deadline=deadline, lease=config.lease)


def _check_lease(folder: RunFolder) -> None:
    """Raise `RefusedError` where a guard beside the session would end it at once."""
    record = folder.record()
    if record.own and over(record.deadline):
        raise RefusedError(
            f"the lease of run `{folder.path.name}` has ended",
            hint="`cloudtrain extend --hours 2` moves its end",
        )


def _push_project(
    context: Context, remote: Remote, layout: Layout, ready: threading.Event
) -> tuple[PushReport, ...]:
    config = context.config
    try:
        with context.timeline.stage("push code") as stage:
            if config.project.git:
                commit = _clone(remote, config.project.git, config.project.ref, layout, stage)
                stage.outcome = f"{config.project.git} at {commit}"
                return ()
            report = push_project(remote, config, context.base, layout, stage, verify=context.verify)
            stage.outcome = said(report)
        local = _local_model(context)
        if local is None:
            return (report,)
        with context.timeline.stage("push model", local.name) as stage:
            model = push_model(remote, local, layout, stage, verify=context.verify)
            stage.outcome = said(model)
        return report, model
    finally:
        ready.set()  # a waiting step then fails by its own check instead of waiting for ever


def _push_data(
    context: Context, remote: Remote, layout: Layout, source: DatasetSource
) -> tuple[PushReport, ...]:
    with context.timeline.stage("push data") as stage:
        lent = _lent(context, source)
        report = push_dataset(remote, source, layout, stage, verify=context.verify, lent=lent)
        fetched = source.kind in ("remote", "objects", "command")
        stage.outcome = "fetched by the machine" if fetched else said(report)
    return (report,)


def _lent(context: Context, source: DatasetSource) -> tuple[Lent, ...]:
    """Lend the caller's right to an S3 source for the transfer."""
    if not source.where.startswith("s3://"):
        return ()
    from cloudtrain.providers.aws.lend import lend

    return lend(source.where, profile=context.config.profile, region=context.config.region)


def said(report: PushReport) -> str:
    """Say in a phrase what a push moved."""
    if report.sent_files == 0:
        return f"{report.files} files, nothing changed"
    return f"{report.sent_files} of {report.files} files, {report.sent_bytes / 1e6:.1f} MB"


def _local_model(context: Context) -> Path | None:
    path = context.base / context.config.train.model
    return path if context.config.train.kind != "script" and path.is_file() else None


def _model(context: Context, layout: Layout) -> str:
    local = _local_model(context)
    return f"{layout.root}/models/{local.name}" if local else context.config.train.model


def _clone(remote: Remote, url: str, ref: str | None, layout: Layout, reporter: Reporter) -> str:
    """Clone on the machine, at its own speed; an earlier clone is updated. Returns the commit."""
    text = script("told-lib", "project-clone")
    told = Told(reporter, unit="objects")
    args = (layout.project, url, ref or "")
    *said, commit = remote.script(text, *args, timeout=600, on_line=told.line).stdout.splitlines()
    stays = [line.removeprefix("stays ") for line in said if line.startswith("stays ") and line != "stays 0"]
    if stays:
        files = "1 file" if stays[0] == "1" else f"{stays[0]} files"
        reporter.emit(Note(f"of the project folder, {files} that the machine wrote there stayed"))
    for line in said:
        if line.startswith("aside "):
            kept = line.removeprefix("aside ")
            reporter.emit(
                Note(f"something of the machine's own was in the way: it is `{kept}` now", "warning")
            )
    return commit
