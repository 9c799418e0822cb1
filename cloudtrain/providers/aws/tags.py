"""Tags and tag filters as the EC2 API writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import ID, OWNER
from cloudtrain.providers.aws.client import Clients


def to_aws(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as the API writes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def mine(run: RunRef) -> list[dict[str, Any]]:
    """Return the filters that select exactly one run of one owner."""
    return [
        {"Name": f"tag:{ID}", "Values": [run.id]},
        {"Name": f"tag:{OWNER}", "Values": [run.owner]},
    ]


def specifications(tags: Mapping[str, str], *, spot: bool) -> list[dict[str, Any]]:
    """Return TagSpecifications for everything that one RunInstances call creates.

    A spot request can relaunch machines, so it is tagged in the very call too.
    """
    kinds = ["instance", "volume", "network-interface"]
    if spot:
        kinds.append("spot-instances-request")
    return [{"ResourceType": kind, "Tags": to_aws(tags)} for kind in kinds]


def caller(clients: Clients) -> str:
    """Ask STS who calls, and return its digest."""
    return owner_of(clients.sts.get_caller_identity()["Arn"])


def owner_of(arn: str) -> str:
    """Return 12 hex digits for a caller.

    The session name of an assumed role is left out: it changes with every sign-in.
    """
    head, _, role = arn.partition(":assumed-role/")
    stable = f"{head}:assumed-role/{role.split('/')[0]}" if role else arn
    return hashlib.sha256(stable.encode()).hexdigest()[:12]
