"""`python -m cloudtrain.sandbox serve|reap|image --state DIR`. Not for people: `cloudtrain` starts it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtrain.errors import CloudtrainError

if TYPE_CHECKING:
    from cloudtrain.sandbox.state import State


def main() -> int:
    """Run one of the two commands and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cloudtrain.sandbox")
    parser.add_argument("command", choices=("serve", "reap", "image"))
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    args = parser.parse_args()
    if args.ready_fd is not None and os.fork():
        os._exit(0)  # whoever asked for a sandbox is not its parent, so that its end leaves no zombie
    from cloudtrain.sandbox.state import State

    state = State(args.state.resolve())
    try:
        if args.command == "image":
            return _image(state)
        from cloudtrain.sandbox.server import reap, serve

        return serve(state, args.ready_fd) if args.command == "serve" else reap(state)
    except CloudtrainError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        print(f"cloudtrain.sandbox: {error.message}{hint}", file=sys.stderr)  # noqa: T201 - stderr is the log
        return error.exit_code


def _image(state: State) -> int:
    """Make the disk image of nspawn machines where there is none; each line on stdout is a note."""
    from cloudtrain.sandbox.nspawn import images
    from cloudtrain.sandbox.nspawn.kind import nspawn_kind

    nspawn_kind(state)
    images.ensure(lambda note: print(note, flush=True))  # noqa: T201 - whoever started this reads it
    return 0


if __name__ == "__main__":
    sys.exit(main())
