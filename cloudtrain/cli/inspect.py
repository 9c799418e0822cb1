"""Verbs that look: status, logs, attach, ssh, exec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli import options as opt
from cloudtrain.cli.command import (
    Speaking,
    applied_config,
    base_of,
    execute,
    provider_for,
    run_of,
)

if TYPE_CHECKING:
    from cloudtrain.console import Console


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Examples: cloudtrain status · cloudtrain status --json · cloudtrain status --timing")(
        status
    )
    app.command(epilog="Examples: cloudtrain watch · cloudtrain watch --json")(watch)
    app.command(epilog="Examples: cloudtrain logs · cloudtrain logs -f")(logs)
    app.command(epilog="Leave with Ctrl-A D: the training goes on.")(attach)
    app.command(epilog="Example: cloudtrain ssh")(ssh)
    app.command(
        "exec",
        epilog="Example: cloudtrain exec -- nvidia-smi",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(execute_command)


def status(
    *,
    timing: Annotated[
        bool, typer.Option("--timing", help="How long each stage and step of the run's commands took.")
    ] = False,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show machine, training, newest checkpoint and cost."""

    def body(console: Console) -> None:
        from cloudtrain.workflows.context import find_run

        folder = find_run(base_of(config), name)
        if folder is None:
            console.result(
                {"run": None, "cloud_asked": False},
                "no open run here; the cloud was not asked\nhint: `cloudtrain audit` asks it for everything of yours",
            )
            return
        if timing:
            console.show_timings(folder.path.name, folder.timings())
            return
        from cloudtrain.workflows.status import status as workflow

        applied = applied_config(folder)
        console.show_status(workflow(folder, applied, lambda: provider_for(folder, applied)))

    execute(Speaking(json, quiet), body)


def watch(
    *,
    every: Annotated[
        float, typer.Option("--every", help="Seconds between two looks.", metavar="SECONDS", min=0.5)
    ] = 3.0,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
) -> None:
    """Watch the training live: epochs, curves, machine, cost, lease. q leaves it alone."""

    def body(console: Console) -> None:
        from cloudtrain.workflows.watch import watch as workflow

        folder = run_of(console, config, name)
        with console.watching() as screen:
            last = workflow(
                folder, applied_config(folder), show=screen.show, leave=screen.leave, every_s=every
            )
        session = last.training.session
        console.result(last, f"session {session.number:03d} is {session.how}")

    execute(Speaking(json), body)


def logs(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep showing new lines until it ends.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-l", help="How many lines from the end.", min=0)] = 40,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show the training's own output."""

    def body(console: Console) -> None:
        from cloudtrain.workflows.shell import show_log

        folder = run_of(console, config, name)
        shown: list[str] = []
        take = shown.append if json and not follow else console.line
        session = show_log(folder, console.reporter, take, follow=follow, lines=lines)
        console.result({"session": session, "lines": shown}, "")

    execute(Speaking(json, quiet), body)


def attach(*, name: opt.Name = None, config: opt.File = None, json: opt.Json = False) -> None:
    """Enter the training's screen session; with --json print the command that would."""

    def body(console: Console) -> int:
        from cloudtrain.workflows.shell import attach as workflow

        folder = run_of(console, config, name)
        return workflow(folder, console.reporter, console.line, sink=console if json else None)

    execute(Speaking(json), body)


def ssh(*, name: opt.Name = None, config: opt.File = None, json: opt.Json = False) -> None:
    """Open a shell on the machine, over OpenSSH and the pinned host key; --json prints the command."""

    def body(console: Console) -> int:
        from cloudtrain.workflows.shell import open_shell

        return open_shell(run_of(console, config, name), sink=console if json else None)

    execute(Speaking(json), body)


def execute_command(
    command: Annotated[
        list[str], typer.Argument(help="The command and its arguments.", metavar="COMMAND...")
    ],
    *,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
) -> None:
    """Run one command on the machine and pass on its output and exit code."""

    def body(console: Console) -> int:
        from cloudtrain.workflows.shell import run_command

        return run_command(run_of(console, config, name), tuple(command), console, as_json=json)

    execute(Speaking(json), body)
