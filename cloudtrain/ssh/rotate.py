"""Replacing the first host key by one that only the machine knows.

The first key travels in user data, which can be read on the machine and through the
cloud's API; so it may vouch for one connection only. Two phases, because either side may
die between any two lines: both keys are pinned, durably, before the machine changes,
and the first is dropped only when a new connection has proven the other. At no point is
a key pinned that did not come over a verified connection, nor is there a point from
which the machine cannot be reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cloudtrain.errors import AuthenticationFailed, ConnectError, HostKeyMismatch
from cloudtrain.paths import shipped
from cloudtrain.ssh.keys import pin, pinned
from cloudtrain.ssh.remote import CommandFailed, Remote

Edge = Literal["prepared", "pinned", "switched", "proven", "dropped"]
"""What has just become true: the next key exists on the machine; both are pinned here; the
machine has changed; it answered with the new key; only that is pinned."""

_UNAVAILABLE = 77
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Server:
    """The machine's sshd: where its key lies, and how it is told. Both scripts run as root."""

    key_file: str = "/etc/ssh/ssh_host_ed25519_key"
    works: str = "test -d /run/systemd/system"
    """Exits with 0 where `reload` can be relied on."""
    reload: str = "systemctl reload ssh || systemctl reload sshd"
    """Makes sshd read its key anew, without ending any connection."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """How it ended. `public` is the key that is pinned now, `kind base64`.

    `unavailable`: the machine gives us no root, has no systemd, or its sshd has its key
    elsewhere; nothing was changed.
    """

    outcome: Literal["rotated", "already", "unavailable"]
    public: str


def rotate(
    remote: Remote,
    first: str,
    *,
    connect: Callable[[], Remote],
    server: Server | None = None,
    edge: Callable[[Edge], None] = lambda _: None,
    deadline_s: float = 30,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Rotation:
    """Replace the host key `first`, a public key line, for good.

    `remote` is open and stays open. `connect` opens one more verified connection to the
    same target. Killed anywhere, the same call again ends the same; called twice, it
    changes nothing. `edge` is told what has just become true. `deadline_s` bounds the
    wait for sshd to answer with the new key, in seconds of `clock`.

    Raises `ConnectError` when the line breaks or the new key is not proven in time (both
    stay pinned), and `HostKeyMismatch` when something else answers.
    """
    target, server = remote.target, server or Server()
    first = " ".join(first.split()[:2])
    known = pinned(target.known_hosts, target.alias)
    if first not in known:
        return Rotation("already", remote.host_key)
    new = remote.host_key
    if new == first:
        prepared = _prepare(remote, server, first, known)
        if prepared is None:
            return Rotation("unavailable", first)
        new = prepared
        edge("prepared")
        pin(target.known_hosts, target.alias, (first, new))
        edge("pinned")
    # Also when the new key answers already: the script may have died in the middle of it.
    remote.script(_script(), "switch", server.key_file, first, new, server.reload)
    edge("switched")
    _prove(new, connect, clock() + deadline_s, clock, sleep)
    edge("proven")
    pin(target.known_hosts, target.alias, (new,))
    edge("dropped")
    return Rotation("rotated", new)


def _prepare(remote: Remote, server: Server, first: str, known: tuple[str, ...]) -> str | None:
    """Return the next key, which lies on the machine; None when it cannot be had there."""
    arguments = ("prepare", server.key_file, first, server.works, *known)
    result = remote.script(_script(), *arguments, check=False)
    if result.code == _UNAVAILABLE:
        return None
    if not result.ok:
        raise CommandFailed(result)
    words = result.stdout.split()
    if len(words) != 2 or words[0] != "ssh-ed25519" or " ".join(words) == first:
        raise ConnectError(f"the machine made no new host key; it said `{result.stdout[:80].strip()}`")
    return " ".join(words)


def _prove(
    new: str,
    connect: Callable[[], Remote],
    end: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Connect until the new key answers: sshd is told, and reads it a moment later."""
    while True:
        try:
            with connect() as fresh:
                if fresh.host_key == new:
                    return
                problem = "it still answers with the old one"
        except (HostKeyMismatch, AuthenticationFailed):
            raise
        except ConnectError as error:
            problem = error.message
        if clock() + _PAUSE_S > end:
            raise ConnectError(
                f"the machine did not take its new host key: {problem}",
                hint="both keys stay pinned; run the same command again, it continues here",
            )
        sleep(_PAUSE_S)


def _script() -> str:
    return (shipped("templates") / "host-key.sh").read_text()
