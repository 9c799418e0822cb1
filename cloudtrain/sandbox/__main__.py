"""`python -m cloudtrain.sandbox serve|reap --state DIR`. Not for people: `cloudtrain` starts it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cloudtrain.errors import CloudtrainError


def main() -> int:
    """Run one of the two commands and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cloudtrain.sandbox")
    parser.add_argument("command", choices=("serve", "reap"))
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    args = parser.parse_args()
    if args.ready_fd is not None and os.fork():
        os._exit(0)  # whoever asked for a sandbox is not its parent, so that its end leaves no zombie
    from cloudtrain.sandbox.server import reap, serve
    from cloudtrain.sandbox.state import State

    state = State(args.state.resolve())
    try:
        return serve(state, args.ready_fd) if args.command == "serve" else reap(state)
    except CloudtrainError as error:
        print(f"cloudtrain.sandbox: {error.message}", file=sys.stderr)  # noqa: T201 - stderr is the log
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
