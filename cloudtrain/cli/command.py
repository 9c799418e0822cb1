"""Running one verb: console, configuration, errors and exit code, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cloudtrain.console import Console
    from cloudtrain.journal.folder import RunFolder
    from cloudtrain.models.config import Config
    from cloudtrain.providers.base import Provider
    from cloudtrain.workflows.context import Context

CONFIG_NAME = "cloudtrain.yaml"


@dataclass(frozen=True, slots=True)
class Speaking:
    """How a verb was told to speak."""

    json: bool = False
    quiet: bool = False


def execute(speaking: Speaking, body: Callable[[Console], int | None]) -> None:
    """Run a verb's body with a console; every error becomes one message and its exit code."""
    from cloudtrain.console import Console
    from cloudtrain.ssh import password

    with Console(json=speaking.json, quiet=speaking.quiet) as console:
        password.ask_by(console.secret)
        try:
            code = body(console) or 0
        except (typer.Exit, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the one place that ends a command
            code = console.show_error(error)
    raise typer.Exit(code)


def base_of(file: Path | None) -> Path:
    """Return the folder that a command is about: that of the given or nearest cloudtrain.yaml."""
    from cloudtrain.errors import UsageError

    if file is not None:
        if not file.is_file():
            raise UsageError(f"`{file}` does not exist", hint="`cloudtrain init` writes one")
        return file.resolve().parent
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder
    return here


def wanted_config(file: Path | None, overrides: dict[str, object]) -> Config:
    """Load cloudtrain.yaml with flags and environment on top. Raises `ConfigError`."""
    from cloudtrain.config import load
    from cloudtrain.errors import UsageError

    path = file or base_of(None) / CONFIG_NAME
    if not path.is_file():
        raise UsageError(
            f"there is no {CONFIG_NAME} in `{Path.cwd()}` or above it",
            hint="`cloudtrain init` writes one by looking at the folder",
        )
    given = {key: value for key, value in overrides.items() if value is not None}
    return load(path, overrides=given)


def cloud_config(file: Path | None, overrides: dict[str, object]) -> Config:
    """Return the configuration of a verb that asks the cloud and needs no project around it."""
    from cloudtrain.config import from_dict
    from cloudtrain.errors import UsageError

    try:
        return wanted_config(file, overrides)
    except UsageError:
        if file is not None:
            raise
    return from_dict({key: value for key, value in overrides.items() if value is not None})


def applied_config(folder: RunFolder) -> Config:
    """Return the configuration a run was last started with; cloudtrain.yaml may be broken by now."""
    from cloudtrain.config import from_dict

    stored = folder.load_config()
    if stored is None:
        record = folder.record()
        stored = {"name": record.name, "provider": record.provider, "region": record.region}
        if record.profile:
            stored["profile"] = record.profile
    return from_dict(stored)


def provider_for(
    folder: RunFolder, config: Config, *, remove: bool = False, give_up: bool = False
) -> Provider:
    """Return the provider and region that a run was launched with, whatever is configured now.

    `remove` and `give_up` say how a host of the user's own is left.
    """
    from dataclasses import replace

    from cloudtrain.wiring import provider_of

    record = folder.record()
    name = record.provider if record.provider in ("aws", "ssh", "sandbox") else "aws"
    region = record.region if name == "aws" else config.region
    found = replace(config, provider=name, region=region)  # pyright: ignore[reportArgumentType]
    return provider_of(found, remove=remove, give_up=give_up)()


def run_of(console: Console, file: Path | None, name: str | None) -> RunFolder:
    """Return the open run that a command is about, with a way to let this computer in again."""
    from cloudtrain.workflows.context import require_run, with_way_in

    folder = require_run(base_of(file), name)
    applied = applied_config(folder)
    return with_way_in(folder, applied, lambda: provider_for(folder, applied), console.reporter)


def context_of(console: Console, config: Config, base: Path, *, yes: bool) -> Context:
    """Put together what a workflow is given."""
    from cloudtrain.events import Timeline
    from cloudtrain.wiring import provider_of
    from cloudtrain.workflows.context import Context

    return Context(
        config=config,
        base=base,
        provider=provider_of(config, console.reporter, confirm=console.confirm if console.can_ask else None),
        reporter=console.reporter,
        timeline=Timeline(console.reporter),
        confirm=(lambda _: True) if yes else console.confirm,
        show_plan=console.show_plan,
        ask=console.confirm if console.can_ask else None,
    )
