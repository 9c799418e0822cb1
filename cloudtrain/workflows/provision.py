"""`provision`: make a run's machine ready, or say what it lacks, without training on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from cloudtrain import bootstrap, facts, training
from cloudtrain.config import from_dict
from cloudtrain.errors import RefusedError
from cloudtrain.events import Waterfall
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.models.training import StepReport
from cloudtrain.ssh.remote import Remote
from cloudtrain.workflows.context import Context, check_open, connect_run, layout_of, telling_what_runs, timed
from cloudtrain.workflows.converged import converged


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Every step that was considered, and what became of it. `changed` counts those that were applied."""

    run: str
    steps: tuple[StepReport, ...]
    changed: int
    dry_run: bool
    waterfall: Waterfall


def provision(
    context: Context, folder: RunFolder, *, only: str | None = None, dry_run: bool = False
) -> Provisioned:
    """Converge the run's machine, or only step `only` and what it needs.

    The configuration is the one that the machine was last given. With `dry_run` nothing
    is applied, and each step that does not hold says why.

    Raises `UsageError` for no such step, `RefusedError` while a training runs that would
    lose its environment, `StepError`, and `ConnectError`.
    """
    check_open(folder)
    stored = folder.load_config()
    config = from_dict(stored) if stored else context.config
    telling = telling_what_runs(folder, context.reporter, context.provider)
    with telling, timed(folder, "provision", context.timeline), connect_run(folder) as remote:
        if dry_run:
            reports = _looked(context, remote, folder, config, only)
        else:
            with folder.settling():
                reports = _applied(context, remote, folder, config, only)
    changed = sum(report.outcome == "changed" for report in reports)
    return Provisioned(folder.path.name, reports, changed, dry_run, context.timeline.waterfall())


def _looked(
    context: Context, remote: Remote, folder: RunFolder, config: Config, only: str | None
) -> tuple[StepReport, ...]:
    with context.timeline.stage("facts"):
        found = facts.gather(remote)
    layout = layout_of(folder, found.home)
    chosen = bootstrap.steps(config, found, layout)
    return bootstrap.converge(remote, chosen, layout, context.timeline, dry_run=True, only=only)


def _applied(
    context: Context, remote: Remote, folder: RunFolder, config: Config, only: str | None
) -> tuple[StepReport, ...]:
    with context.timeline.stage("facts"):
        found = facts.gather(remote)
    layout = layout_of(folder, found.home)
    pending = _looked_at(context, remote, layout, bootstrap.steps(config, found, layout), only)
    if pending:
        _refuse_under_training(remote, layout, pending)
    ready = threading.Event()
    ready.set()  # nothing is pushed: a step that needs the project finds the one that is there
    return converged(
        remote,
        lambda seen: bootstrap.steps(config, seen, layout),
        found,
        layout,
        context.timeline,
        ready=ready,
        drained=lambda: None,
        ours=config.provider != "ssh",
        only=only,
    )


def _looked_at(
    context: Context, remote: Remote, layout: Layout, chosen: tuple[bootstrap.Step, ...], only: str | None
) -> list[str]:
    reports = bootstrap.converge(remote, chosen, layout, context.timeline, dry_run=True, only=only)
    return [report.name for report in reports if report.outcome == "pending"]


def _refuse_under_training(remote: Remote, layout: Layout, pending: list[str]) -> None:
    for session in training.sessions(remote, layout):
        if session.state == "running":
            raise RefusedError(
                f"session {session.number:03d} is running, and {', '.join(pending)} would change what it runs on",
                hint="wait for it; `cloudtrain provision --dry-run` shows what is pending",
            )
