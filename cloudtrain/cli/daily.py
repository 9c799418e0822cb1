"""Verbs of the day's work: train, fetch-weights, evaluate, tunnel."""

from __future__ import annotations

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
    run_of,
    wanted_config,
)

if TYPE_CHECKING:
    from cloudtrain.console import Console


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(
        epilog="Examples: cloudtrain train · cloudtrain train --weights best · cloudtrain train --stop"
    )(train)
    app.command(
        "fetch-weights", epilog="Examples: cloudtrain fetch-weights · cloudtrain fetch-weights --watch"
    )(fetch_weights)
    app.command(epilog="Example: cloudtrain evaluate --data data.yaml")(evaluate)
    app.command(
        epilog="Examples: cloudtrain tunnel jupyter · cloudtrain tunnel tensorboard · cloudtrain tunnel 8080"
    )(tunnel)


def train(
    *,
    replace: Annotated[bool, typer.Option("--replace", help="End a running session first.")] = False,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="best or last: start from the last result.", metavar="WHICH"),
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the session and keep the machine.")] = False,
    verify: opt.Verify = False,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Push what changed and start a new session on the machine that is there."""

    def body(console: Console) -> None:
        from dataclasses import replace as with_changes

        from cloudtrain.workflows.train import stop_training
        from cloudtrain.workflows.train import train as workflow

        if stop:
            session = stop_training(run_of(console, config, name))
            console.result(session, f"session {session.number:03d} was ended; the machine is kept")
            return
        context = context_of(console, wanted_config(config, {}), base_of(config), yes=True)
        context = with_changes(context, verify=verify)
        console.show_trained(workflow(context, replace=replace, weights=weights))

    execute(Speaking(json, quiet), body)


def fetch_weights(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Every file of the run, not only the newest.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep fetching until the training ends.")] = False,
    max_age: Annotated[
        float,
        typer.Option(
            "--max-age",
            help="With --watch: warn when the copy is older than so much.",
            metavar="SECONDS",
            min=1,
        ),
    ] = 60.0,
    to: Annotated[
        Path | None, typer.Option("--to", help="Copy the checkpoints here too.", metavar="DIR")
    ] = None,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Bring checkpoints and results home, proven whole."""

    def body(console: Console) -> None:
        from cloudtrain.events import Timeline
        from cloudtrain.workflows.fetch import check_destination, copy_to, fetch
        from cloudtrain.workflows.fetch import watch as keep

        folder = run_of(console, config, name)
        applied, timeline = applied_config(folder), Timeline(console.reporter)
        if to is not None:
            check_destination(to)
        if watch:
            fetched = keep(
                folder, applied, timeline, console.reporter, everything=everything, max_age_s=max_age
            )
        else:
            fetched = fetch(folder, applied, timeline, everything=everything)
        if to is not None:
            copy_to(fetched, to)
        console.show_fetched(fetched)

    execute(Speaking(json, quiet), body)


def evaluate(
    *,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="A checkpoint; default: the newest best.pt at home.", metavar="FILE"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="data.yaml; default: the configured dataset.", metavar="FILE"),
    ] = None,
    minimum: Annotated[
        float | None, typer.Option("--min-map50", help="Exit with 1 below this.", metavar="VALUE")
    ] = None,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Measure a fetched YOLO checkpoint on the held-out images (extra `train`).

    This loads the checkpoint, which runs code from it: only for weights of your own.
    """

    def body(console: Console) -> int:
        from cloudtrain.workflows.evaluate import evaluate_run

        result = evaluate_run(
            base_of(config), name=name, weights=weights, data=data, reporter=console.reporter
        )
        console.show_evaluation(result)
        return 1 if minimum is not None and result.map50 < minimum else 0

    execute(Speaking(json, quiet), body)


def tunnel(
    targets: Annotated[list[str], typer.Argument(help="jupyter, tensorboard, or a port.", metavar="WHAT...")],
    *,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", "-p", help="Local port; 0 picks a free one.", metavar="PORT", min=0, max=65535
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
    name: opt.Name = None,
    config: opt.File = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Open Jupyter, TensorBoard or a port of the machine on this computer."""

    def body(console: Console) -> None:
        import signal
        import threading

        from cloudtrain.workflows.tunnel import Opened
        from cloudtrain.workflows.tunnel import tunnel as workflow

        folder = run_of(console, config, name)
        stop = threading.Event()

        def end(_number: int, _frame: object) -> None:
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)

        def opened(tunnels: tuple[Opened, ...]) -> None:
            console.show_opened(tunnels)
            for one in tunnels if browser and console.interactive else ():
                typer.launch(one.url)

        workflow(
            folder,
            applied_config(folder),
            console.reporter,
            tuple(targets),
            local_port=port,
            opened=opened,
            stop=stop,
        )

    execute(Speaking(json, quiet), body)
