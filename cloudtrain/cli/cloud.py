"""Verbs that ask about the account: offers, quota, doctor, iam-policy, audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import CONFIG_NAME, Speaking, applied_config, base_of, execute, wanted_config

if TYPE_CHECKING:
    from cloudtrain.console import Console
    from cloudtrain.models.config import Config
    from cloudtrain.models.machine import Market
    from cloudtrain.providers.base import Provider
    from cloudtrain.workflows.audit import Audit, Deleting


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(
        epilog="Examples: cloudtrain offers · cloudtrain offers --gpu A10G --max-price 2 · "
        "cloudtrain offers --gpu-memory 24 --market spot --region eu-west-1"
    )(offers)
    app.command(
        epilog="Examples: cloudtrain quota · cloudtrain quota --type g5.xlarge --market spot --request 8"
    )(quota)
    app.command(epilog="Examples: cloudtrain doctor · cloudtrain doctor --json")(doctor)
    app.command(
        "iam-policy",
        epilog="Examples: cloudtrain iam-policy > policy.json · cloudtrain iam-policy up down audit --dataset s3://bucket/set.zip",
    )(iam_policy)
    app.command(
        epilog="Examples: cloudtrain audit · cloudtrain audit --region us-east-1 --json · "
        "cloudtrain audit --delete vol-0123456789abcdef0"
    )(audit)


def offers(
    *,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Part of the GPU's name, such as T4 or A10G.", metavar="NAME")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option("--gpu-memory", help="GiB of GPU memory at least, of all GPUs together.", metavar="GIB"),
    ] = None,
    max_price: Annotated[
        float | None,
        typer.Option(
            "--max-price", help="Money an hour at most, with volume and address.", metavar="MONEY", min=0
        ),
    ] = None,
    market: Annotated[
        str | None,
        typer.Option("--market", help="on-demand or spot.", metavar="MARKET", show_default="both"),
    ] = None,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """List GPU machines with their prices, cheapest first, and what your lease would come to."""

    def body(console: Console) -> None:
        from cloudtrain.models.account import OfferQuery
        from cloudtrain.workflows.offers import offers as workflow

        wanted, made = _asking(config, provider, region, profile)
        query = OfferQuery(markets=_markets(market), gpu=gpu, gpu_memory_gib=gpu_memory)
        console.show_offers(workflow(made, wanted, query, max_price=max_price))

    execute(Speaking(json, quiet), body)


def quota(
    *,
    request: Annotated[
        int | None,
        typer.Option("--request", help="Ask AWS for this many vCPUs.", metavar="VCPUS", min=1),
    ] = None,
    instance_type: opt.InstanceType = None,
    market: opt.Market = None,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show how many vCPUs you may run of the configured types, or ask for more."""

    def body(console: Console) -> None:
        from cloudtrain.workflows.quota import quota as workflow

        wanted, made = _asking(config, provider, region, profile, type=instance_type, market=market)
        console.show_quota(workflow(made, wanted, request=request))

    execute(Speaking(json, quiet), body)


def doctor(
    *,
    provider: opt.ProviderName = None,
    region: opt.Region = None,
    profile: opt.Profile = None,
    instance_type: opt.InstanceType = None,
    market: opt.Market = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Check credentials, region, clock, quota, network and tools; each with its remedy.

    The exit code is 3 when something blocks a run.
    """

    def body(console: Console) -> int:
        from cloudtrain.wiring import provider_of
        from cloudtrain.workflows.doctor import doctor as workflow

        wanted = _wanted(config, provider, region, profile, type=instance_type, market=market)
        found = workflow(provider_of(wanted), wanted)
        console.show_doctor(found)
        return 3 if found.blocked else 0

    execute(Speaking(json, quiet), body)


def iam_policy(
    verbs: Annotated[
        list[str] | None,
        typer.Argument(help="The verbs to allow; `audit-delete` is audit --delete.", metavar="[VERB...]"),
    ] = None,
    *,
    dataset: Annotated[
        str, typer.Option("--dataset", help="Also allow reading this dataset.source.", metavar="S3-ADDRESS")
    ] = "",
    region: opt.Region = None,
    profile: opt.Profile = None,
    json: opt.Json = False,
) -> None:
    """Print the least IAM policy for some verbs, or for all; with --json also each action's reason."""

    def body(console: Console) -> None:
        from cloudtrain.models.config import Config
        from cloudtrain.wiring import provider_of
        from cloudtrain.workflows.policy import iam_policy as workflow

        made = provider_of(Config(provider="aws", region=region, profile=profile))()
        console.show_policy(workflow(made, tuple(verbs or ()), dataset))

    execute(Speaking(json), body)


def audit(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="With --delete: only these; needed for what is not yours.", metavar="[ID...]"),
    ] = None,
    *,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is yours, or the given ids; asks first.")
    ] = False,
    discard: Annotated[
        bool,
        typer.Option("--discard", help="With --delete: give up what is only on a machine or a disk."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --delete: do not ask.")] = False,
    provider: opt.ProviderName = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            "--region",
            help="Look only here; may be repeated.",
            metavar="REGION",
            show_default="every enabled one",
        ),
    ] = None,
    profile: opt.Profile = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find everything of cloudtrain's in every region, with price, owner and how to remove it."""

    def body(console: Console) -> None:
        from cloudtrain.errors import UsageError
        from cloudtrain.workflows.audit import Deleting
        from cloudtrain.workflows.audit import audit as workflow

        if (ids or discard) and not delete:
            raise UsageError("ids and `--discard` belong to `--delete`", hint="`cloudtrain audit --help`")
        regions = tuple(region) if region else None
        made = _auditor(config, provider, regions[0] if regions else None, profile)
        found = workflow(made, regions)
        if not delete:
            console.show_audit(found)
        else:
            _delete(console, made, found, Deleting(ids=tuple(ids or ()), discard=discard), yes=yes)

    execute(Speaking(json, quiet), body)


def _auditor(file: Path | None, provider: str | None, region: str | None, profile: str | None) -> Provider:
    """Return the provider to look through; a cloudtrain.yaml that is broken by now does not hinder."""
    from cloudtrain.config import defaults
    from cloudtrain.errors import ConfigError
    from cloudtrain.wiring import provider_of

    try:
        return _asking(file, provider, region, profile)[1]
    except ConfigError:
        flags = {"provider": provider, "region": region, "profile": profile}
        return provider_of(defaults(Path("/"), overrides={k: v for k, v in flags.items() if v is not None}))()


def _delete(console: Console, provider: Provider, found: Audit, deleting: Deleting, *, yes: bool) -> None:
    from cloudtrain.events import Note, Timeline
    from cloudtrain.workflows.audit import Deletion, choose, spared
    from cloudtrain.workflows.audit import delete as workflow

    chosen = choose(found, deleting)
    if not chosen:
        console.show_deletion(Deletion((), spared(found, deleting)))
        return
    for one in chosen:
        whose = "" if one.mine else f", of somebody else ({one.owner})"
        console.reporter.emit(Note(f"to remove: {one.kind} {one.id} ({one.run}) in {one.region}{whose}"))
    why = "this deletes what cannot be had back"
    if not yes and not console.confirm(f"delete these {len(chosen)} things?", why=why):
        console.show_deletion(Deletion((), tuple((one.id, "you said no") for one in chosen)))
        return
    console.show_deletion(workflow(provider, found, deleting, Timeline(console.reporter), applied_config))


def _markets(market: str | None) -> tuple[Market, ...]:
    from cloudtrain.errors import UsageError

    if market is None or market == "spot-then-on-demand":
        return ("on-demand", "spot")
    if market == "spot":
        return ("spot",)
    if market == "on-demand":
        return ("on-demand",)
    raise UsageError(f"there is no market `{market}`", hint="`--market` is on-demand or spot")


def _asking(
    file: Path | None, provider: str | None, region: str | None, profile: str | None, **instance: str | None
) -> tuple[Config, Provider]:
    from cloudtrain.wiring import provider_of

    wanted = _wanted(file, provider, region, profile, **instance)
    return wanted, provider_of(wanted)()


def _wanted(
    file: Path | None, provider: str | None, region: str | None, profile: str | None, **instance: str | None
) -> Config:
    """Load the nearest cloudtrain.yaml; these verbs also work where there is none."""
    from cloudtrain.config import defaults

    flags: dict[str, object] = {"provider": provider, "region": region, "profile": profile}
    flags |= {f"instance.{key}": value for key, value in instance.items()}
    if file is not None or (base_of(None) / CONFIG_NAME).is_file():
        return wanted_config(file, flags)
    return defaults(Path.cwd(), overrides={k: v for k, v in flags.items() if v is not None})
