"""Our presence on a host: a marker in the run's folder there, and its end.

Everything of a run lies in `~/cloudtrain/<slug>`; `run.json` in it says whose it is. What
is not below that folder, and not a process that one of its sessions or services started,
is never touched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cloudtrain.errors import CloudError, ConnectError
from cloudtrain.paths import shipped
from cloudtrain.ssh.remote import KILLED, Remote

GRACE_S = 20
"""How long what still runs may take to end by itself."""
_REASONS = {
    5: "its folder `~/cloudtrain` cannot be written",
    6: "something of the run does not end, not even killed",
    7: "the run's files cannot all be removed",
}


@dataclass(frozen=True, slots=True)
class Marker:
    """What a host says of one run on it."""

    slug: str
    owner: str
    by: str
    taken: str


def mark(remote: Remote, marker: Marker) -> str:
    """Write the marker unless it is there, and return the host's HOME.

    Raises `CloudError` when the host lacks what training needs at all.
    """
    text = json.dumps({"run": marker.slug, "owner": marker.owner, "by": marker.by, "taken": marker.taken})
    done = remote.script(_script("own-take.sh"), marker.slug, text, check=False)
    if done.code in (3, 127):
        said = done.stdout.strip() or "bash is missing"
        raise CloudError(
            f"{remote.target.address} cannot be used: {said}",
            hint="have its owner install that",
            code="unfit",
        )
    if not done.ok:
        raise _failed(remote, done.code, done.tail)
    return done.stdout.strip().splitlines()[-1]


def markers(remote: Remote) -> tuple[Marker, ...]:
    """Return the markers of every run on a host."""
    found: list[Marker] = []
    for line in remote.script(_script("own-list.sh")).stdout.splitlines():
        try:
            row: Any = json.loads(line)
            found.append(Marker(str(row["run"]), str(row["owner"]), str(row["by"]), str(row["taken"])))
        except (ValueError, KeyError, TypeError):
            continue
    return tuple(found)


def leave(remote: Remote, slug: str, *, remove: bool) -> None:
    """End everything of a run on a host and take its marker away; `remove` takes its files too.

    Raises `CloudError` when something does not end.
    """
    how = "remove" if remove else "keep"
    done = remote.script(
        _script("own-release.sh"), slug, how, str(GRACE_S), check=False, timeout=GRACE_S + 60
    )
    if not done.ok:
        raise _failed(remote, done.code, done.tail)


def _failed(remote: Remote, code: int, tail: str) -> CloudError | ConnectError:
    if code == KILLED:
        return ConnectError(f"a script of ours on {remote.target.address} was killed", hint="run it again")
    why = _REASONS.get(code, tail or f"exit code {code}")
    return CloudError(f"{remote.target.address}: {why}", hint="`cloudtrain ssh` lets you look there")


def _script(name: str) -> str:
    folder = shipped("templates")
    return (folder / "session-lib.sh").read_text() + (folder / name).read_text()
