"""Our presence on a host: a marker in the run's folder there, and its end.

Everything of a run lies in `~/cloudtrain/<slug>`; `run.json` in it says whose it is. What
is not below that folder, and not a process that one of its sessions or services started,
is never touched.
"""

from __future__ import annotations

import json
import secrets
import shlex
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

_PROBE = r"""
printf '%s' "$1"
two='\\'
[ "${#two}" = 2 ] && printf '%s' "$1"
"""
"""As our scripts are: several lines, quotes, backslashes, which not every login shell hands on as they are."""


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
    _ask_shell(remote)
    text = json.dumps({"run": marker.slug, "owner": marker.owner, "by": marker.by, "taken": marker.taken})
    done = remote.script(_script("own-take.sh"), marker.slug, text, check=False)
    if done.code in (3, 127):
        said = done.stdout.strip() or "bash is missing"
        raise _unfit(remote, said, "have its owner install that")
    if not done.ok:
        raise _failed(remote, done.code, done.tail)
    return done.stdout.strip().splitlines()[-1]


def _ask_shell(remote: Remote) -> None:
    """See that the login shell hands a script on as it is, and says nothing of its own before it.

    What it says would be taken for the script's: for a file that is fetched, for an answer.
    """
    nonce = secrets.token_hex(16)
    done = remote.run(shlex.join(["bash", "-c", _PROBE, "cloudtrain", nonce]), check=False)
    before, _, rest = done.stdout.partition(nonce)
    if done.code in (127, KILLED):
        return  # what comes next meets it as well, and says it
    if rest != nonce:
        shell = remote.run('echo "$SHELL"', check=False).stdout.strip().rpartition("\n")[2]
        said = f"the login shell there, {shell or 'of no name'}, does not hand on a script as it is"
        raise _unfit(remote, said, "`chsh -s /bin/bash` there makes bash the login shell of that account")
    if before:
        said = f"its shell prints `{before.strip()[:200]}` before every command"
        begin = "let its start-up file (~/.bashrc) begin with `[[ $- == *i* ]] || return`"
        raise _unfit(remote, said, f"{begin}: then only terminals see that")


def _unfit(remote: Remote, said: str, hint: str) -> CloudError:
    return CloudError(f"{remote.target.address} cannot be used: {said}", hint=hint, code="unfit")


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
