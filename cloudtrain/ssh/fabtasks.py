"""Fabric tasks over our verified connection.

`fab -H host TASK` hands a task an unopened Fabric connection that would trust what its
user's ssh configuration trusts. We take nothing from it but the name: the caller's
`resolve` turns that into a target with pinned keys, or refuses, and only then is
anything sent. Beside `ssh.remote` this is the only module that knows Fabric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cloudtrain.errors import CloudtrainError, UsageError
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.remote import Remote, connect

if TYPE_CHECKING:
    from invoke.collection import Collection

Body = Callable[[str, Remote], None]
"""What a task does: it gets the name given to `-H`, and a connection to that machine."""


def collection(bodies: Iterable[tuple[str, str, Body]], resolve: Callable[[str], SshTarget]) -> Collection:
    """Return a collection of tasks from `(name, help, body)`.

    `resolve` maps a host name as given to `-H` to a verified target, before any network;
    it raises `UsageError` for a host that is none of ours. A `CloudtrainError` ends `fab`
    with its message, its hint and its exit code.
    """
    from fabric import Task  # pyright: ignore[reportPrivateImportUsage]
    from invoke.collection import Collection

    made: Any = Collection()
    for name, about, body in bodies:
        made.add_task(Task(_run(body, about, resolve), name=name), name=name)
    return made


def _run(body: Body, about: str, resolve: Callable[[str], SshTarget]) -> Callable[[object], None]:
    def run(context: object) -> None:
        try:
            host = _host(context)
            with connect(resolve(host)) as remote:
                body(host, remote)
        except CloudtrainError as error:
            raise _fab_exit(error) from error

    run.__doc__ = about
    return run


def _host(context: object) -> str:
    # `original_host` is what was typed; `host` may come from ~/.ssh/config.
    host: str | None = getattr(context, "original_host", None)
    if host is None:
        raise UsageError("no machine was named", hint="say which with `-H NAME`")
    return host


def _fab_exit(error: CloudtrainError) -> Exception:
    from invoke.exceptions import Exit

    text = f"{error.message}\n{error.hint}" if error.hint else error.message
    return Exit(text, code=error.exit_code)
