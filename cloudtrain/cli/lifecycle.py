"""Verbs that begin and end machines: up, run, down."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
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
    wanted_config,
)

if TYPE_CHECKING:
    from cloudtrain.console import Console
    from cloudtrain.workflows.context import Context


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Examples: cloudtrain up · cloudtrain up -y --type g5.xlarge --max-cost 5")(up)
    app.command(epilog="Examples: cloudtrain run -y · cloudtrain run --provider sandbox")(run)
    app.command(
        epilog="Examples: cloudtrain down · cloudtrain down --stop-training · cloudtrain down --discard"
    )(down)


def up(
    *,
    yes: opt.Yes = False,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    instance_type: opt.InstanceType = None,
    market: opt.Market = None,
    volume_gb: opt.VolumeGb = None,
    max_hours: opt.MaxHours = None,
    max_cost: opt.MaxCost = None,
    wait_for_capacity: opt.WaitForCapacity = 0.0,
    resume: opt.Resume = False,
    verify: opt.Verify = False,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Launch a machine, set it up, push code and data, start the training."""
    flags = _flags(provider, region, profile, instance_type, market, volume_gb, max_hours, max_cost)

    def body(console: Console) -> None:
        from cloudtrain.workflows.up import up as workflow

        context = _context(console, config, flags, yes=yes, wait_hours=wait_for_capacity, verify=verify)
        result = workflow(replace(context, resume=resume))
        console.show_up(result)

    execute(Speaking(json, quiet), body)


def run(
    *,
    yes: opt.Yes = False,
    keep_on_failure: Annotated[
        bool, typer.Option("--keep-on-failure", help="Keep the machine when the training fails.")
    ] = False,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    instance_type: opt.InstanceType = None,
    market: opt.Market = None,
    volume_gb: opt.VolumeGb = None,
    max_hours: opt.MaxHours = None,
    max_cost: opt.MaxCost = None,
    wait_for_capacity: opt.WaitForCapacity = 0.0,
    resume: opt.Resume = False,
    verify: opt.Verify = False,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Do it all: up, wait, fetch, down. The exit code is the training's."""
    flags = _flags(provider, region, profile, instance_type, market, volume_gb, max_hours, max_cost)

    def body(console: Console) -> int:
        from cloudtrain.workflows.run import run as workflow

        context = _context(console, config, flags, yes=yes, wait_hours=wait_for_capacity, verify=verify)
        result = workflow(replace(context, resume=resume), keep_on_failure=keep_on_failure)
        console.show_ran(result)
        return result.exit_code

    execute(Speaking(json, quiet), body)


def down(
    *,
    stop_training: Annotated[
        bool, typer.Option("--stop-training", help="End a running training first.")
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Fetch nothing: give up what is only on the machine.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="On a machine of your own: delete what we put there.")
    ] = False,
    wait_for_capacity: opt.WaitForCapacity = 0.0,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Bring the weights home, end the machine, leave nothing behind."""

    def body(console: Console) -> None:
        from cloudtrain.events import Timeline
        from cloudtrain.provision.wait import Patience
        from cloudtrain.workflows.context import (
            find_run,
            nothing_to_end,
            telling_what_runs,
            with_way_in,
        )
        from cloudtrain.workflows.down import Ending
        from cloudtrain.workflows.down import down as workflow

        folder = find_run(base_of(config), name)
        if folder is None:
            console.result({"run": None, "leftovers": []}, nothing_to_end(name))
            return
        applied = applied_config(folder)
        patience = Patience(hours=wait_for_capacity)
        ending = Ending(stop_training=stop_training, discard=discard, patience=patience)
        provide = cache(partial(provider_for, folder, applied, remove=remove, give_up=discard))
        folder = with_way_in(folder, applied, provide, console.reporter)
        with telling_what_runs(folder, console.reporter, provide):
            timeline = Timeline(console.reporter)
            result = workflow(folder, applied, provide(), console.reporter, timeline, ending)
        console.show_down(result)

    execute(Speaking(json, quiet), body)


def _flags(
    provider: str | None,
    region: str | None,
    profile: str | None,
    instance_type: str | None,
    market: str | None,
    volume_gb: int | None,
    max_hours: float | None,
    max_cost: float | None,
) -> dict[str, object]:
    return {
        "provider": provider,
        "region": region,
        "profile": profile,
        "instance.type": instance_type,
        "instance.market": market,
        "instance.volume_gb": volume_gb,
        "lease.hours": max_hours,
        "lease.cost": max_cost,
    }


def _context(
    console: Console,
    file: Path | None,
    flags: dict[str, object],
    *,
    yes: bool,
    wait_hours: float,
    verify: bool,
) -> Context:
    config = wanted_config(file, flags)
    context = context_of(console, config, base_of(file), yes=yes)
    return replace(context, wait_hours=wait_hours, verify=verify)
