"""Verbs that touch no machine: init, config-schema, sandbox, fab-path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli.command import CONFIG_NAME, Speaking, execute
from cloudtrain.cli.options import Json, Quiet

if TYPE_CHECKING:
    from cloudtrain.console import Console

sandbox_app = typer.Typer(help="The emulated cloud on this computer.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: cd my-yolo-project && cloudtrain init")(init)
    app.command("config-schema", epilog="Example: cloudtrain config-schema > cloudtrain.schema.json")(schema)
    app.command("fab-path", epilog='Example: fab -r "$(cloudtrain fab-path)" -H helmets base-packages')(
        fab_path
    )
    app.add_typer(sandbox_app, name="sandbox")


def init(
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing cloudtrain.yaml.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented cloudtrain.yaml by looking at this folder."""

    def body(console: Console) -> None:
        from cloudtrain.config import propose
        from cloudtrain.errors import RefusedError

        path = Path.cwd() / CONFIG_NAME
        if path.exists() and not force:
            raise RefusedError(f"`{path}` exists already", hint="`cloudtrain init --force` replaces it")
        path.write_text(propose(Path.cwd()))
        console.result({"file": str(path)}, f"wrote {path}")

    execute(Speaking(json, quiet), body)


def schema() -> None:
    """Print the JSON schema of cloudtrain.yaml, for editors."""

    def body(console: Console) -> None:
        from cloudtrain.config import schema as make

        console.data(make())

    execute(Speaking(), body)


def fab_path() -> None:
    """Print the folder of the Fabric tasks, for `fab -r`."""

    def body(console: Console) -> None:
        import cloudtrain

        folder = Path(cloudtrain.__file__).parent / "bootstrap"
        console.result({"folder": str(folder)}, str(folder), plain=True)

    execute(Speaking(), body)


@sandbox_app.command("status")
def sandbox_status(*, json: Json = False) -> None:
    """Say whether the emulated cloud runs, and where."""

    def body(console: Console) -> None:
        from cloudtrain.providers import sandbox

        found = sandbox.running()
        text = f"running at {found.url}" if found else "not running"
        console.result({"running": found is not None, "url": found.url if found else None}, text)

    execute(Speaking(json), body)


@sandbox_app.command("stop")
def sandbox_stop(*, json: Json = False) -> None:
    """End the emulated cloud with every machine in it. What they hold is lost."""

    def body(console: Console) -> None:
        from cloudtrain.providers import sandbox

        sandbox.stop()
        console.result({"running": False}, "the sandbox is stopped")

    execute(Speaking(json), body)
