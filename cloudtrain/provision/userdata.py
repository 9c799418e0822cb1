"""The user data a machine is launched with: its host key, our key, its deadline.

EC2 limits user data to 16 KB raw; ours is a tenth of it. The host key in it is
readable on the machine and through the API, so it serves the first connection only
and is rotated over that connection where we may.
"""

from __future__ import annotations

from datetime import datetime

from cloudtrain.errors import UsageError
from cloudtrain.render import render
from cloudtrain.ssh.keys import KeyPair

LIMIT = 16 * 1024


def user_data(*, host_key: KeyPair, user_public: str, deadline: datetime | None) -> str:
    """Return a cloud-config. Raises `UsageError` should it ever outgrow EC2's limit."""
    text = render(
        "user-data.yaml.j2",
        host_private=host_key.private,
        host_public=host_key.public,
        user_public=user_public,
        deadline_epoch=int(deadline.timestamp()) if deadline else 0,
    )
    if len(text.encode()) > LIMIT:
        raise UsageError(f"the user data has {len(text.encode())} bytes, EC2 allows {LIMIT}")
    return text
