"""The guard's program and its config; `guard.py` runs on the machine, alone, and is never imported here."""

from __future__ import annotations

import ast
from datetime import datetime
from pathlib import Path

from cloudtrain.models.config import Lease
from cloudtrain.models.run import Layout

FIRST_CONTACT_S = 20 * 60
RESCUE_HOURS = 2.0
GRACE_S = 120
"""Seconds a trainer gets to write a checkpoint: what EC2 gives before it takes a spot machine back."""


def machine_config(
    *, deadline: datetime | None, lease: Lease, rescue_hours: float = RESCUE_HOURS
) -> dict[str, object]:
    """Return the config for a machine of our own, that the guard may power off.

    `rescue_hours` is what our own fetch may hold up a boot after the lease for, at most.
    """
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
        "rescue_most_s": round(rescue_hours * 3600),
        "notify": lease.notify,
    }


def host_config(layout: Layout, *, deadline: datetime | None, lease: Lease) -> dict[str, object]:
    """Return the config for somebody's host: it ends our sessions at the deadline, never the machine.

    It runs beside the sessions, and ends with them.
    """
    return {
        **machine_config(deadline=deadline, lease=lease),
        "contact": [layout.root],
        "runs": [layout.root],
        "state": f"{layout.root}/guard/state",
        "imds": None,
        "poweroff": None,
        "idle_s": 0,
        "beside": True,
        "ends": "ending the training",
    }


def program() -> str:
    """Return the guard's program as it is sent: without the docstrings of its functions and classes.

    They are a seventh of it, and user data is short; the module's own, the file contract, stays.
    """
    text = (Path(__file__).parent / "guard.py").read_text()
    lines: list[str | None] = list(text.splitlines(keepends=True))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node)
            and len(node.body) > 1
        ):
            first = node.body[0]
            lines[first.lineno - 1 : first.end_lineno] = [None] * ((first.end_lineno or 0) - first.lineno + 1)
    return "".join(line for line in lines if line is not None)
