"""The user data a machine is launched with: its host key, our key, its guard.

EC2 limits user data to 16 KB raw, most of which is the guard. The host key in it is
readable on the machine and through the API, so it serves the first connection only
and is rotated over that connection where we may.
"""

from __future__ import annotations

import ast
import base64
import gzip
import json
from datetime import datetime
from pathlib import Path

import cloudtrain.guard
from cloudtrain.errors import UsageError
from cloudtrain.models.config import Lease
from cloudtrain.render import render
from cloudtrain.ssh.keys import KeyPair

LIMIT = 16 * 1024
FIRST_CONTACT_S = 20 * 60
GRACE_S = 120
"""Seconds a trainer gets to write a checkpoint: what EC2 gives before it takes a spot machine back."""

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
    notify: str | None = None,
) -> str:
    """Return a cloud-config. Raises `UsageError` should it ever outgrow EC2's limit.

    `notify` is a shell command of the user's, run with CLOUDTRAIN_NOTICE at each notice.
    """
    text = render(
        "user-data.yaml.j2",
        host_private=host_key.private,
        host_public=host_key.public,
        user_public=user_public,
        guard=_packed(guard_source()),
        guard_config=json.dumps(guard_config(deadline=deadline, lease=lease or Lease(), notify=notify)),
        guard_unit=render("guard.service.j2"),
        guard_start=START,
    )
    if len(text.encode()) > LIMIT:
        raise UsageError(f"the user data has {len(text.encode())} bytes, EC2 allows {LIMIT}")
    return text


def guard_config(*, deadline: datetime | None, lease: Lease, notify: str | None = None) -> dict[str, object]:
    """Return the guard's config for a machine of our own, that it may power off."""
    return {
        "deadline": int(deadline.timestamp()) if deadline else 0,
        "first_contact_s": FIRST_CONTACT_S,
        "contact": ["/home/*/cloudtrain", "/root/cloudtrain"],
        "state": "/var/lib/cloudtrain-guard",
        "imds": "http://169.254.169.254",
        "poweroff": ["systemctl", "poweroff"],
        "idle_s": (lease.idle_minutes or 0) * 60,
        "after_training": lease.after_training,
        "grace_s": GRACE_S,
        "notify": notify,
    }


def guard_source() -> str:
    """Return the guard's program as it runs on the machine: without the docstrings of its functions.

    They are a seventh of it, and user data is short; the module's own, the file contract, stays.
    """
    text = (Path(cloudtrain.guard.__file__).parent / "guard.py").read_text()
    lines: list[str | None] = list(text.splitlines(keepends=True))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
            first = node.body[0]
            lines[first.lineno - 1 : first.end_lineno] = [None] * ((first.end_lineno or 0) - first.lineno + 1)
    return "".join(line for line in lines if line is not None)


def _packed(text: str) -> str:
    # No time in it: the same request must be the same bytes, or its token is refused.
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
