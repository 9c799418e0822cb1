"""The user data a machine is launched with: its host key, our key, its guard.

EC2 limits user data to 16 KB raw, most of which is the guard. The host key in it is
readable on the machine and through the API, so it serves the first connection only
and is rotated over that connection where we may.
"""

from __future__ import annotations

import base64
import gzip
import json
from datetime import datetime

from cloudtrain.errors import UsageError
from cloudtrain.guard import RESCUE_HOURS, machine_config, program
from cloudtrain.models.config import Lease
from cloudtrain.render import render
from cloudtrain.ssh.keys import KeyPair

LIMIT = 16 * 1024

START = """exec >/dev/null 2>&1
for i in $(seq 600); do [ -s /etc/systemd/system/cloudtrain-guard.service ] && break; sleep 0.1; done
systemctl daemon-reload
systemctl enable cloudtrain-guard.service
systemctl start --no-block cloudtrain-guard.service"""


def user_data(
    *,
    host_key: KeyPair,
    user_public: str,
    deadline: datetime | None,
    lease: Lease | None = None,
    rescue_hours: float = RESCUE_HOURS,
) -> str:
    """Return a cloud-config. Raises `UsageError` should it ever outgrow EC2's limit."""
    text = render(
        "user-data.yaml.j2",
        host_private=host_key.private,
        host_public=host_key.public,
        user_public=user_public,
        guard=_packed(program()),
        guard_config=json.dumps(
            machine_config(deadline=deadline, lease=lease or Lease(), rescue_hours=rescue_hours)
        ),
        guard_unit=render("guard.service.j2"),
        guard_start=START,
    )
    if len(text.encode()) > LIMIT:
        raise UsageError(f"the user data has {len(text.encode())} bytes, EC2 allows {LIMIT}")
    return text


def _packed(text: str) -> str:
    # No time in it: the same request must be the same bytes, or its token is refused.
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
