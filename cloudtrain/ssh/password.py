"""The password of a machine that takes no key: asked for once a command, and kept nowhere.

It lives in this process and in the environment of the `ssh` that it starts; it is in no
file, no log, no argument list and no repr.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from getpass import getpass

from cloudtrain.errors import UsageError
from cloudtrain.models.machine import SshTarget

VARIABLE = "CLOUDTRAIN_SSH_PASSWORD"
_asking = threading.Lock()
_ways: list[Callable[[str], str]] = []


def ask_by(way: Callable[[str], str]) -> None:
    """Say how this process asks on its terminal, which something else may be drawing on."""
    _ways[:] = [way]


def password_of(target: SshTarget) -> str:
    """Return the password for a machine: from the environment, or asked for on the terminal.

    Raises `UsageError` where there is neither.
    """
    with _asking:  # two connections at once must not ask twice
        return _ask(target.user, target.address, target.port)


def can_be_asked() -> bool:
    """Whether there is a password in the environment, or somebody at a terminal."""
    return VARIABLE in os.environ or (sys.stdin is not None and sys.stdin.isatty())


@cache
def _ask(user: str, address: str, port: int) -> str:
    given = os.environ.get(VARIABLE)
    if given is not None:
        return given
    if not can_be_asked():
        raise UsageError(
            f"{user}@{address} wants a password, and there is no terminal to ask for it",
            hint=f"set {VARIABLE} in the environment; better, let a key in: `ssh-copy-id -p {port} {user}@{address}`",
        )
    question = f"password for {user}@{address}: "
    return _ways[0](question) if _ways else getpass(question)
