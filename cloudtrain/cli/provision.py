"""The verb that makes a machine ready without training on it: provision."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import (
    Speaking,
    applied_config,
    base_of,
    context_of,
    execute,
    provider_for,
    run_of,
)

if TYPE_CHECKING:
    from cloudtrain.console import Console


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command(
        epilog="Examples: cloudtrain provision · cloudtrain provision --dry-run · cloudtrain provision --only driver"
    )(provision)


def provision(
    *,
    only: Annotated[
        str | None, typer.Option("--only", help="Only this step, and what it needs.", metavar="STEP")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what is pending, and why.")
    ] = False,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make every step hold on the run's machine, without training; a second time changes nothing."""

    def body(console: Console) -> None:
        from dataclasses import replace

        from cloudtrain.workflows.provision import provision as workflow

        folder = run_of(console, config, name)
        applied = applied_config(folder)
        context = context_of(console, applied, base_of(config), yes=True)
        context = replace(context, provider=partial(provider_for, folder, applied))
        console.show_provisioned(workflow(context, folder, only=only, dry_run=dry_run))

    execute(Speaking(json, quiet), body)
