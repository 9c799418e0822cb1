"""Where the command `cloudtrain` begins."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; nothing heavier than typer is imported before a verb needs it."""
    from cloudtrain.cli.app import app

    app(prog_name="cloudtrain")


if __name__ == "__main__":
    sys.exit(main())
