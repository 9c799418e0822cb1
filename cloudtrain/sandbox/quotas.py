"""Service Quotas for EC2: applied and default values, and requests for more."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from cloudtrain.sandbox.account import QUOTAS, Account
from cloudtrain.sandbox.emulator import ACCOUNT
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.wire import Forward, Reply, Request, failure, json_reply

_OPEN = ("PENDING", "CASE_OPENED")


class Quotas:
    """The calls of Service Quotas that concern EC2's vCPU quotas; others are moto's."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._asked: list[tuple[str, dict[str, Any]]] = []

    def behaviours(self) -> Mapping[tuple[str, str], Behaviour]:
        """Return what to do for which call."""
        service = "servicequotas"
        return {
            (service, "GetServiceQuota"): self.applied,
            (service, "GetAWSDefaultServiceQuota"): self.default,
            (service, "ListServiceQuotas"): self.listed,
            (service, "RequestServiceQuotaIncrease"): self.increase,
            (service, "ListRequestedServiceQuotaChangeHistoryByQuota"): self.history,
        }

    def applied(self, request: Request, forward: Forward) -> Reply:
        """Answer the value that holds for this account."""
        if request.json.get("ServiceCode") != "ec2":
            return forward(request)
        code = str(request.json.get("QuotaCode"))
        if code not in QUOTAS:
            return _unknown(request)
        return json_reply({"Quota": _quota(request.region, code, self._account.quota(request.region, code))})

    def default(self, request: Request, forward: Forward) -> Reply:
        """Answer the value of a new account."""
        if request.json.get("ServiceCode") != "ec2":
            return forward(request)
        code = str(request.json.get("QuotaCode"))
        if code not in QUOTAS:
            return _unknown(request)
        return json_reply({"Quota": _quota(request.region, code, QUOTAS[code][1])})

    def listed(self, request: Request, forward: Forward) -> Reply:
        """Answer all of them."""
        if request.json.get("ServiceCode") != "ec2":
            return forward(request)
        region = request.region
        rows = [_quota(region, code, self._account.quota(region, code)) for code in QUOTAS]
        return json_reply({"Quotas": rows})

    def increase(self, request: Request, forward: Forward) -> Reply:
        """Take a request for more; one at a time for a quota. Granted at once if the account says so."""
        asked, region = request.json, request.region
        if asked.get("ServiceCode") != "ec2":
            return forward(request)
        code, wanted = str(asked.get("QuotaCode")), float(asked.get("DesiredValue", 0))
        if code not in QUOTAS:
            return _unknown(request)
        if any(row["QuotaCode"] == code and row["Status"] in _OPEN for row in self._of(region, code)):
            text = "Only one open service quota increase request is allowed per quota."
            return failure(request, "ResourceAlreadyExistsException", text)
        if wanted <= self._account.quota(region, code):
            text = "You must provide a quota value greater than the current quota value"
            return failure(request, "IllegalArgumentException", text)
        granted = self._account.settings().approve
        if granted:
            self._account.granted[region, code] = wanted
        row = {
            "Id": secrets.token_hex(16),
            "ServiceCode": "ec2",
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaCode": code,
            "QuotaName": QUOTAS[code][0],
            "DesiredValue": wanted,
            "Status": "APPROVED" if granted else "PENDING",
            "Created": int(time.time()),
            "Requester": f'{{"accountId":"{ACCOUNT}"}}',
            "Unit": "None",
        }
        self._asked.insert(0, (region, row))
        return json_reply({"RequestedQuota": row})

    def history(self, request: Request, forward: Forward) -> Reply:
        """Answer what was asked for a quota, the newest first."""
        asked = request.json
        if asked.get("ServiceCode") != "ec2":
            return forward(request)
        wanted = asked.get("Status")
        rows = self._of(request.region, str(asked.get("QuotaCode")))
        return json_reply({"RequestedQuotas": [row for row in rows if wanted in (None, row["Status"])]})

    def _of(self, region: str, code: str) -> list[dict[str, Any]]:
        return [row for where, row in self._asked if where == region and row["QuotaCode"] == code]


def _quota(region: str, code: str, value: float) -> dict[str, Any]:
    partition = "aws-cn" if region.startswith("cn-") else "aws"
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:{partition}:servicequotas:{region}:{ACCOUNT}:ec2/{code}",
        "QuotaCode": code,
        "QuotaName": QUOTAS[code][0],
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


def _unknown(request: Request) -> Reply:
    return failure(request, "NoSuchResourceException", "The request failed because the quota does not exist.")
