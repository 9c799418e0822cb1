"""vCPU quotas: the one that a type and market counts against, what is used of it, asking for more.

Codes and families: AWS's list of EC2 quotas (the unit is vCPUs, per region). Spot and
on-demand have quotas of their own, and P5 spot one apart from the older P types.
"""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as boto

from cloudtrain.errors import CloudError
from cloudtrain.models.account import Quota, QuotaRequest
from cloudtrain.models.machine import Market
from cloudtrain.providers.aws import hardware
from cloudtrain.providers.aws.advice import DEADLINE_S, Advice, ask
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import FAILURES, NO_ANSWER, code_of, translate

SERVICE = "ec2"


@dataclass(frozen=True, slots=True)
class Code:
    """One quota, and the instance families that count against it (letters and generation)."""

    code: str
    name: str
    market: Market
    families: str
    default: float


CODES = (
    Code("L-DB2E81BA", "Running On-Demand G and VT instances", "on-demand", r"(gr?|vt)", 0),
    Code("L-417A185B", "Running On-Demand P instances", "on-demand", r"p", 0),
    Code("L-1216C47A", "Running On-Demand Standard instances", "on-demand", r"[acdhimrtz]", 5),
    Code("L-3819A6DF", "All G and VT Spot Instance Requests", "spot", r"(gr?|vt)", 0),
    Code("L-C4BD4855", "All P5 Spot Instance Requests", "spot", r"p5", 0),
    Code("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", "spot", r"p[234]", 0),
    Code("L-34B43A08", "All Standard Spot Instance Requests", "spot", r"[acdhimrtz]", 5),
)
"""Where families overlap the first that fits counts."""
_OPEN = ("PENDING", "CASE_OPENED")


def code_for(type_name: str, market: Market) -> Code:
    """Return the quota that a type counts against. Raises `CloudError` for a family without one here."""
    for code in CODES:
        if code.market == market and _counts(code, type_name):
            return code
    raise CloudError(
        f"which quota {type_name} ({market}) counts against is not known here",
        hint="look for its family in the Service Quotas console, service EC2",
    )


def _counts(code: Code, type_name: str) -> bool:
    family = type_name.partition(".")[0]
    letters = family if any(c.isdigit() for c in code.families) else re.sub(r"\d.*", "", family)
    pattern = code.families + (r"([a-z-].*)?" if letters == family else "")
    return re.fullmatch(pattern, letters) is not None


def read(clients: Clients, type_name: str, market: Market, deadline_s: float = DEADLINE_S) -> Quota:
    """Return what is allowed and used of a type's quota; what is denied or late is None and named."""
    code = code_for(type_name, market)
    advice = Advice(deadline_s)
    applied: Future[float | None] = ask(lambda: _value(clients.quotas.get_service_quota, code))
    default = ask(lambda: _value(clients.quotas.get_aws_default_service_quota, code))
    vcpus = ask(lambda: _vcpus(clients, type_name))
    used: Future[int | None] = ask(lambda: _used(clients, code))
    history = ask(lambda: _open_request(clients, code))
    open_value, open_state = advice.take(history, "earlier requests", (None, ""))
    usual = advice.take(default, "the quota's default", code.default)
    return Quota(
        code=code.code,
        name=code.name,
        region=clients.region,
        type=type_name,
        market=market,
        needed=advice.take(vcpus, "the type's vCPUs", 0) or _packaged_vcpus(type_name),
        allowed=_allowed(advice, applied, usual),
        default=usual,
        used=advice.take(used, "what runs now", None),
        requested=open_value,
        request_state=open_state,
        missing=tuple(advice.missing),
    )


def _allowed(advice: Advice, applied: Future[float | None], usual: float | None) -> float | None:
    """Return the applied value; one that was never changed is answered as missing and is the default."""
    try:
        return advice.wait(applied)
    except boto.ClientError as error:
        if code_of(error) == "NoSuchResourceException":
            return usual
    except (*NO_ANSWER, TimeoutError, KeyError):
        pass
    return advice.take(applied, "the quota", None)


def _value(call: Any, code: Code) -> float:  # noqa: ANN401 - a boto3 method
    return float(call(ServiceCode=SERVICE, QuotaCode=code.code)["Quota"]["Value"])


def _vcpus(clients: Clients, type_name: str) -> int:
    rows = hardware.described(clients, (type_name,))
    return hardware.offer(type_name, rows.get(type_name), ()).vcpus


def _packaged_vcpus(type_name: str) -> int:
    return hardware.offer(type_name, None, ()).vcpus


def _used(clients: Clients, code: Code) -> int:
    """Count the vCPUs of all machines, ours or not, that count against a quota now."""
    request: Any = {"Filters": [{"Name": "instance-state-name", "Values": ["pending", "running"]}]}
    pages = clients.advice.get_paginator("describe_instances").paginate(**request)
    total = 0
    for page in pages:
        for item in (one for row in page["Reservations"] for one in row.get("Instances", [])):
            market = "spot" if item.get("InstanceLifecycle") == "spot" else "on-demand"
            if market == code.market and _counts(code, str(item.get("InstanceType"))):
                total += _vcpus_of(item)
    return total


def _vcpus_of(item: Any) -> int:  # noqa: ANN401 - one instance of the API
    cpu: dict[str, int] = item.get("CpuOptions", {})
    told = cpu.get("CoreCount", 0) * cpu.get("ThreadsPerCore", 1)
    return told or _packaged_vcpus(str(item.get("InstanceType")))


def _open_request(clients: Clients, code: Code) -> tuple[float | None, str]:
    rows = clients.quotas.list_requested_service_quota_change_history_by_quota(
        ServiceCode=SERVICE, QuotaCode=code.code
    )["RequestedQuotas"]
    waiting = [row for row in rows if row.get("Status") in _OPEN]
    return (float(waiting[-1]["DesiredValue"]), str(waiting[-1]["Status"])) if waiting else (None, "")


def request(clients: Clients, type_name: str, market: Market, value: float) -> QuotaRequest:
    """Ask AWS for a higher quota. Raises `CloudError` when one is asked for already, or it is denied."""
    code = code_for(type_name, market)
    try:
        answer = clients.quotas.request_service_quota_increase(
            ServiceCode=SERVICE, QuotaCode=code.code, DesiredValue=value
        )["RequestedQuota"]
    except FAILURES as error:
        raise translate(error, f"asking for {value:g} vCPUs of {code.name}") from error
    return QuotaRequest(code.code, value, str(answer.get("Status", "")), str(answer.get("CaseId") or ""))
