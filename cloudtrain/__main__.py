"""Where the command `cloudtrain` begins."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line; nothing heavier than typer is imported before a verb needs it."""
    from cloudtrain.cli.app import app

    signal.signal(signal.SIGTERM, _asked_to_end)
    if "--json" in sys.argv and "--" not in sys.argv[: sys.argv.index("--json")]:
        _answering_json()
    app(prog_name="cloudtrain")


def _asked_to_end(_number: int, _frame: FrameType | None) -> None:
    """End as on Ctrl-C: what still runs is said, and nothing is left half-written."""
    raise KeyboardInterrupt


def _answering_json() -> None:
    """Run with usage errors as the same object that every other error is, and exit."""
    from typer._click.exceptions import ClickException  # typer keeps click to itself

    from cloudtrain.cli.app import app

    try:
        code = app(prog_name="cloudtrain", standalone_mode=False)
    except ClickException as error:
        from cloudtrain.console import Console
        from cloudtrain.errors import UsageError

        with Console(json=True, quiet=False) as console:
            code = console.show_error(UsageError(error.format_message(), hint="--help lists what there is"))
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    sys.exit(main())
