"""Verbs of images: bake, images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import Speaking, base_of, cloud_config, context_of, execute, wanted_config

if TYPE_CHECKING:
    from cloudtrain.console import Console


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Examples: cloudtrain bake · cloudtrain bake -y --type g4dn.xlarge")(bake)
    app.command(epilog="Examples: cloudtrain images · cloudtrain images --prune")(images)


def bake(
    *,
    yes: opt.Yes = False,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    instance_type: opt.InstanceType = None,
    volume_gb: opt.VolumeGb = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make an image that has everything installed, for `image: auto` to start from."""
    flags: dict[str, object] = {
        "provider": provider,
        "region": region,
        "profile": profile,
        "instance.type": instance_type,
        "instance.volume_gb": volume_gb,
    }

    def body(console: Console) -> None:
        from cloudtrain.workflows.bake import bake as workflow

        context = context_of(console, wanted_config(config, flags), base_of(config), yes=yes)
        console.show_bake(workflow(context))

    execute(Speaking(json, quiet), body)


def images(
    *,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove images that a newer one of the same recipe has replaced; asks."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --prune: do not ask.")] = False,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """List the images that you baked, with their cost a month, and remove old ones."""
    flags: dict[str, object] = {"provider": provider, "region": region, "profile": profile}

    def body(console: Console) -> None:
        from dataclasses import replace

        from cloudtrain.events import Note
        from cloudtrain.wiring import provider_of
        from cloudtrain.workflows import images as workflow

        wanted = cloud_config(config, flags)
        asked = provider_of(wanted, console.reporter)()
        found = workflow.images(asked, wanted)
        old = [one.image for one in found.images if one.old]
        if prune and old:
            for one in old:
                what = one.id or "what is left of one"
                also = ", ".join(one.snapshots)
                console.reporter.emit(Note(f"to remove: {what} ({one.name or one.run}), with {also}"))
            why = "this deletes what cannot be had back"
            if yes or console.confirm(f"delete these {len(old)}?", why=why):
                gone = workflow.prune(asked, found)
                found = replace(workflow.images(asked, wanted), pruned=gone)
        console.show_images(found)

    execute(Speaking(json, quiet), body)
