"""All verbs, registered; each lives with its kin in a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudtrain import __version__
from cloudtrain.cli import cloud, daily, images, inspect, lifecycle, parking, provision, setup, sweep

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Rent a GPU, train, bring the weights home, leave nothing behind.",
    epilog="Start with `cloudtrain init`, then `cloudtrain up`. Rehearse without an account: `cloudtrain run --provider sandbox`.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"cloudtrain {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Rent a GPU, train, bring the weights home, leave nothing behind."""


for module in (setup, lifecycle, parking, provision, images, daily, inspect, sweep, cloud):
    module.register(app)
