"""The verb of searches for hyperparameters: sweep status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import Speaking, execute, run_of

if TYPE_CHECKING:
    from cloudtrain.console import Console


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Look at a search for hyperparameters."
    )
    group.callback()(_group)
    group.command(epilog="Example: cloudtrain sweep status")(status)
    app.add_typer(group, name="sweep")


def _group() -> None:
    """Look at a search for hyperparameters."""


def status(
    *, name: opt.Name = None, config: opt.File = None, json: opt.Json = False, quiet: opt.Quiet = False
) -> None:
    """Show every worker of the search, how many trials are done, and the best."""

    def body(console: Console) -> None:
        from cloudtrain.workflows.sweep import status as workflow

        console.show_swept(workflow(run_of(console, config, name)))

    execute(Speaking(json, quiet), body)
