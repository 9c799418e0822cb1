"""Verbs that put a machine aside and take it up again: stop, start."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import Speaking, applied_config, base_of, execute, provider_for

if TYPE_CHECKING:
    from cloudtrain.console import Console
    from cloudtrain.workflows.park import Parking


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Examples: cloudtrain stop · cloudtrain stop --stop-training")(stop)
    app.command(epilog="Examples: cloudtrain start · cloudtrain start --wait-for-capacity 6")(start)


def stop(
    *,
    stop_training: Annotated[
        bool, typer.Option("--stop-training", help="End a running training first.")
    ] = False,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Park the machine: it stops, its disk is kept, and only the disk is paid for."""

    def body(console: Console) -> None:
        from cloudtrain.workflows.context import telling_what_runs
        from cloudtrain.workflows.park import stop as workflow

        parking = _parking(console, config, name)
        with telling_what_runs(parking.folder, console.reporter, lambda: parking.provider):
            console.show_parked(workflow(parking, stop_training=stop_training))

    execute(Speaking(json, quiet), body)


def start(
    *,
    wait_for_capacity: opt.WaitForCapacity = 0.0,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Start the parked machine again, with everything on its disk."""

    def body(console: Console) -> None:
        from cloudtrain.provision.wait import Patience
        from cloudtrain.workflows.context import telling_what_runs
        from cloudtrain.workflows.park import start as workflow

        parking = _parking(console, config, name)
        with telling_what_runs(parking.folder, console.reporter, lambda: parking.provider):
            console.show_started(workflow(parking, Patience(hours=wait_for_capacity)))

    execute(Speaking(json, quiet), body)


def _parking(console: Console, file: Path | None, name: str | None) -> Parking:
    from cloudtrain.events import Timeline
    from cloudtrain.workflows.context import require_run, with_way_in
    from cloudtrain.workflows.park import Parking

    folder = require_run(base_of(file), name)
    applied = applied_config(folder)
    provide = cache(partial(provider_for, folder, applied))
    folder = with_way_in(folder, applied, provide, console.reporter)
    return Parking(folder, provide(), console.reporter, Timeline(console.reporter))
