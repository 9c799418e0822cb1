"""Which host key is a host's: given in the configuration, known already, or confirmed once.

Nothing but the key exchange happens before that is settled: no user name and no key of
ours goes to a host that is not trusted.
"""

from __future__ import annotations

from collections.abc import Callable

from cloudtrain.errors import HostKeyMismatch, RefusedError
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.hostkeys import host_keys
from cloudtrain.ssh.keys import fingerprint

Confirm = Callable[[str], bool]
"""Shows a question with a fingerprint and returns the user's answer."""


def trusted_key(
    target: SshTarget, *, given: str | None, known: tuple[str, ...], label: str, confirm: Confirm | None
) -> str:
    """Return the host key to pin, `kind base64`.

    `given` is the configuration's fingerprint and decides alone; `known` are keys that
    this user trusts the host with already; else `confirm` is asked. Raises
    `HostKeyMismatch` when the host contradicts either, `RefusedError` without a yes, and
    `ConnectError` when nobody answers.
    """
    if given is not None:
        return _given(target, given.rstrip("="), label)
    first: str | None = None
    for key in host_keys(target):
        if key in known:
            return key
        kind = key.split(maxsplit=1)[0]
        if any(line.split(maxsplit=1)[0] == kind for line in known):
            raise HostKeyMismatch(
                f"{label} answered with another host key than this computer knows it by: "
                f"{fingerprint(key)}; nothing was sent to it",
                hint="somebody may be in between; if its owner says that this is its new key, "
                f"write `fingerprint: {fingerprint(key)}` beside its address",
            )
        first = first or key
        if not known:
            break
    assert first is not None  # host_keys raises when there is none
    _ask(first, label, confirm)
    return first


def _given(target: SshTarget, given: str, label: str) -> str:
    seen: list[str] = []
    for key in host_keys(target):
        if fingerprint(key) == given:
            return key
        seen.append(fingerprint(key))
    raise HostKeyMismatch(
        f"{label} has another host key than `hosts` says: it answered with {', '.join(seen)}; "
        "nothing was sent to it",
        hint="somebody may be in between; ask the host's owner for its fingerprint",
    )


def _ask(key: str, label: str, confirm: Confirm | None) -> None:
    name = fingerprint(key)
    if confirm is None:
        raise RefusedError(
            f"the host key of {label} is not known: {name}; nothing was sent to it",
            hint=f"compare it with its owner, then write `fingerprint: {name}` beside its address",
        )
    if not confirm(f"the host key of {label} is {name}. Is that the right machine?"):
        raise RefusedError(
            f"the host key of {label} was not confirmed; nothing was sent to it",
            hint="its owner can tell you its fingerprint: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`",
        )
