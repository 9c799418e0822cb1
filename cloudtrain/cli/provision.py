"""The verb that makes a machine ready without training on it: provision."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import (
    Speaking,
    applied_config,
    context_of,
    execute,
    provider_for,
    run_of,
)

if TYPE_CHECKING:
    from cloudtrain.console import Console
    from cloudtrain.journal.folder import RunFolder
    from cloudtrain.workflows.context import Context


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command(
        epilog="Examples: cloudtrain provision · cloudtrain provision --dry-run · cloudtrain provision --only driver · cloudtrain provision --all"
    )(provision)


def provision(
    *,
    only: Annotated[
        str | None, typer.Option("--only", help="Only this step, and what it needs.", metavar="STEP")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what is pending, and why.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="The machines of all your open runs, side by side.")
    ] = False,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make every step hold on the run's machine, without training; a second time changes nothing."""

    def body(console: Console) -> int:
        from cloudtrain.workflows.provision import provision as workflow
        from cloudtrain.workflows.provision_all import provision_all

        def context(folder: RunFolder) -> Context:
            return _context(console, folder)

        if every:
            done = provision_all(_open(console, name), context, only=only, dry_run=dry_run)
            console.show_fleet(done)
            return done.exit_code
        folder = run_of(console, config, name)
        console.show_provisioned(workflow(context(folder), folder, only=only, dry_run=dry_run))
        return 0

    execute(Speaking(json, quiet), body)


def _context(console: Console, folder: RunFolder) -> Context:
    from dataclasses import replace

    applied = applied_config(folder)
    context = context_of(console, applied, Path(folder.record().project), yes=True)
    return replace(context, provider=partial(provider_for, folder, applied))


def _open(console: Console, name: str | None) -> list[RunFolder]:
    """Return every open run, with a way to its machine."""
    from cloudtrain.errors import UsageError
    from cloudtrain.journal.folder import open_runs
    from cloudtrain.workflows.context import with_way_in

    if name is not None:
        raise UsageError("`--all` and `--name` contradict each other", hint="leave one of them out")
    found: list[RunFolder] = []
    for folder in open_runs():
        applied = applied_config(folder)
        way = with_way_in(folder, applied, partial(provider_for, folder, applied), console.reporter)
        found.append(way)
    if not found:
        raise UsageError("no run is open on this computer", hint="`cloudtrain up` starts one")
    return found
