"""The tags that make a resource ours: the truth about what exists.

Keys hold neither `/` nor spaces, so that a machine can read them through the
metadata service.
"""

from __future__ import annotations

from cloudtrain.models.run import RunRef

RUN = "cloudtrain-run"
ID = "cloudtrain-id"
OWNER = "cloudtrain-owner"
DEADLINE = "cloudtrain-deadline"
HOST_KEY = "cloudtrain-hostkey"
"""The public half of the machine's host key, `kind base64`: how a second laptop knows the machine."""


def run_tags(run: RunRef) -> dict[str, str]:
    """Return the tags that everything of a run carries from its creation on."""
    return {"Name": f"cloudtrain-{run.slug}", RUN: run.name, ID: run.id, OWNER: run.owner}
