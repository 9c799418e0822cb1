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

        def given(folder: RunFolder) -> tuple[Context, RunFolder]:
            return _given(console, folder)

        if every:
            done = provision_all(_open(console, name), given, only=only, dry_run=dry_run)
            console.show_fleet(done)
            return done.exit_code
        context, folder = given(run_of(console, config, name))
        console.show_provisioned(workflow(context, folder, only=only, dry_run=dry_run))
        return 0

    execute(Speaking(json, quiet), body)


def _given(console: Console, folder: RunFolder) -> tuple[Context, RunFolder]:
    """Return what `provision` is given for a run, and the run with a way to its machine."""
    from dataclasses import replace

    from cloudtrain.workflows.context import with_way_in

    applied = applied_config(folder)
    provider = partial(provider_for, folder, applied)
    context = context_of(console, applied, Path(folder.record().project), yes=True)
    return replace(context, provider=provider), with_way_in(folder, applied, provider, console.reporter)


def _open(console: Console, name: str | None) -> list[RunFolder]:
    """Return every open run that has a machine; an image's own is another command's."""
    from cloudtrain.errors import UsageError
    from cloudtrain.events import Note
    from cloudtrain.journal.folder import open_runs

    if name is not None:
        raise UsageError("`--all` and `--name` contradict each other", hint="leave one of them out")
    found: list[RunFolder] = []
    for folder in open_runs():
        record = folder.record()
        if record.machine is None or record.bake:
            what = "it bakes an image" if record.bake else "it has no machine yet"
            console.reporter.emit(Note(f"{folder.path.name} is left out: {what}"))
        else:
            found.append(folder)
    if not found:
        raise UsageError("no run is open on this computer", hint="`cloudtrain up` starts one")
    return found
