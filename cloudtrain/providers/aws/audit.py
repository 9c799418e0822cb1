"""Everything in one region that carries our tags, asked side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from cloudtrain.models.plan import Found
from cloudtrain.models.tags import ID, OWNER, RUN
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import translating

Row = Mapping[str, Any]
Kind = Literal["instance", "volume", "spot-request", "key-pair", "security-group", "interface"]


@dataclass(frozen=True, slots=True)
class _Question:
    kind: Kind
    operation: str
    rows: Callable[[Row], Iterable[Row]]
    id_field: str
    state: Callable[[Row], str]


_QUESTIONS = (
    _Question(
        "instance",
        "describe_instances",
        lambda page: [item for row in page["Reservations"] for item in row["Instances"]],
        "InstanceId",
        lambda row: str(row["State"]["Name"]),
    ),
    _Question(
        "volume", "describe_volumes", lambda page: page["Volumes"], "VolumeId", lambda row: str(row["State"])
    ),
    _Question(
        "spot-request",
        "describe_spot_instance_requests",
        lambda page: page["SpotInstanceRequests"],
        "SpotInstanceRequestId",
        lambda row: str(row["State"]),
    ),
    _Question("key-pair", "describe_key_pairs", lambda page: page["KeyPairs"], "KeyName", lambda _: "exists"),
    _Question(
        "security-group",
        "describe_security_groups",
        lambda page: page["SecurityGroups"],
        "GroupId",
        lambda _: "exists",
    ),
    _Question(
        "interface",
        "describe_network_interfaces",
        lambda page: page["NetworkInterfaces"],
        "NetworkInterfaceId",
        lambda row: str(row["Status"]),
    ),
)
_ENDED = {"terminated", "closed", "cancelled"}


def everything(clients: Clients, owner: str) -> tuple[Found, ...]:
    """Return what exists, of every run and owner; what has ended is left out."""
    with ThreadPoolExecutor(len(_QUESTIONS), thread_name_prefix="audit") as pool:
        answers = [pool.submit(_ask, clients, question, owner) for question in _QUESTIONS]
        return tuple(found for answer in answers for found in answer.result())


def _ask(clients: Clients, question: _Question, owner: str) -> list[Found]:
    call: Any = getattr(clients.ec2, question.operation)
    filters = [{"Name": "tag-key", "Values": [OWNER]}]
    with translating(f"looking for every {question.kind} of cloudtrain's"):
        if clients.ec2.can_paginate(question.operation):
            pages: Any = clients.ec2.get_paginator(question.operation).paginate(Filters=filters)  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownMemberType, reportUnknownVariableType]
        else:
            pages = [call(Filters=filters)]
        every: list[Row] = list(pages)  # pyright: ignore[reportUnknownArgumentType]
        rows = [row for page in every for row in question.rows(page)]
    found = [_found(question, row, owner) for row in rows]
    return [one for one in found if one.state not in _ENDED]


def _found(question: _Question, row: Row, owner: str) -> Found:
    pairs: list[Row] = row.get("Tags") or row.get("TagSet") or []
    tags = {str(pair["Key"]): str(pair.get("Value", "")) for pair in pairs}
    return Found(
        kind=question.kind,
        id=str(row[question.id_field]),
        run=f"{tags.get(RUN, '?')}-{tags.get(ID, '?')}",
        state=question.state(row),
        mine=tags.get(OWNER) == owner,
    )
