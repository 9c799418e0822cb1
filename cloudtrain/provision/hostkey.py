"""The host key of a machine, from the one in its user data to one that only it knows."""

from __future__ import annotations

import json
from functools import partial

from cloudtrain.errors import CloudError
from cloudtrain.events import Note, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.tags import HOST_KEY
from cloudtrain.providers.base import Provider
from cloudtrain.ssh.keys import pinned
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.ssh.rotate import Edge, rotate


def secure_host_key(remote: Remote, folder: RunFolder, provider: Provider, timeline: Timeline) -> None:
    """Replace the first host key where the machine lets us, and keep its public half as a tag.

    Killed anywhere, the next command continues. Where it cannot be done (no root, no
    systemd) the first key stays pinned and that is remembered. Raises what `rotate`
    raises; a tag that is denied is only said.
    """
    record = folder.record()
    if folder.host_key.exists() and record.rotation is None:
        _rotate(remote, folder, timeline)
    pins = pinned(folder.known_hosts, folder.path.name)
    replaced = not folder.host_key.exists() and len(pins) == 1
    public = pins[0] if replaced else None
    if public is not None and record.machine is not None and record.tagged_key != public:
        try:
            provider.tag(record.machine, {HOST_KEY: public})
        except CloudError as error:
            timeline.reporter.emit(
                Note(
                    f"the host key could not be kept as a tag: {error.message}",
                    level="warning",
                    hint="`cloudtrain adopt` on another computer will not know this machine",
                )
            )
            return
        folder.update(tagged_key=public)


def _rotate(remote: Remote, folder: RunFolder, timeline: Timeline) -> None:
    first = json.loads(folder.host_key.read_text())["public"]

    def edge(name: Edge) -> None:
        folder.journal.append("host-key", edge=name)

    with timeline.stage("host key", "one that only the machine knows") as stage:
        done = rotate(remote, first, connect=partial(connect, remote.target), edge=edge)
        stage.outcome = {
            "rotated": "replaced",
            "already": "replaced before",
            "unavailable": "stays as launched: the machine gives no root",
        }[done.outcome]
    if done.outcome == "unavailable":
        folder.update(rotation=done.outcome)
    else:
        folder.host_key.unlink(missing_ok=True)
