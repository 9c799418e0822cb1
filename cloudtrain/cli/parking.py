"""Verbs that put a machine aside, take it up again or keep it longer: stop, start, extend, adopt."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import Speaking, applied_config, base_of, cloud_config, execute, provider_for

if TYPE_CHECKING:
    from cloudtrain.console import Console
    from cloudtrain.workflows.park import Parking


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Examples: cloudtrain stop · cloudtrain stop --stop-training")(stop)
    app.command(epilog="Examples: cloudtrain start · cloudtrain start --wait-for-capacity 6")(start)
    app.command(epilog="Examples: cloudtrain extend --hours 2 · cloudtrain extend --cost 1.50 -y")(extend)
    app.command(epilog="Examples: cloudtrain adopt helmets · cloudtrain adopt helmets --region eu-west-1")(
        adopt
    )


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


def extend(
    *,
    hours: Annotated[
        float | None, typer.Option("--hours", help="So many hours more.", metavar="HOURS", min=0.01)
    ] = None,
    cost: Annotated[
        float | None,
        typer.Option("--cost", help="As much longer as this money buys.", metavar="MONEY", min=0.001),
    ] = None,
    yes: opt.Yes = False,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Let the machine live longer; its price is shown first. A stopped one stays stopped."""

    def body(console: Console) -> None:
        from cloudtrain.workflows.extend import More
        from cloudtrain.workflows.extend import extend as workflow

        parking = _parking(console, config, name)
        more = More(hours=hours, cost=cost)
        console.show_extended(
            workflow(parking.folder, parking.provider, more, lambda asked: yes or console.confirm(asked))
        )

    execute(Speaking(json, quiet), body)


def adopt(
    run: Annotated[str, typer.Argument(help="The run's name, or name-id.", metavar="NAME")],
    *,
    start: Annotated[
        bool, typer.Option("--start", help="Start its machine first when it is stopped.")
    ] = False,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Take over a run of yours that another computer started, from this folder on."""

    def body(console: Console) -> None:
        from cloudtrain.events import Timeline
        from cloudtrain.wiring import provider_of
        from cloudtrain.workflows.adopt import Adopting
        from cloudtrain.workflows.adopt import adopt as workflow

        chosen = cloud_config(config, {"provider": provider, "region": region, "profile": profile})
        adopting = Adopting(
            provider=provider_of(chosen)(),
            config=chosen,
            project=base_of(config),
            reporter=console.reporter,
            timeline=Timeline(console.reporter),
            start=start,
        )
        console.show_adopted(workflow(adopting, run))

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
