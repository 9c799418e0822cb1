"""The metadata service's answers, without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from cloudtrain.sandbox.metadata import Notice, Tokens, answer

AT = datetime(2026, 11, 21, 12, 2, tzinfo=UTC)
TTL = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}


@dataclass
class Asking:
    id: str = "i-1"
    type: str = "g4dn.xlarge"
    image: str = "ami-1"
    zone: str = "us-east-1b"
    lifecycle: str = "spot"
    address: str | None = "127.70.0.1"
    tags: Mapping[str, str] | None = field(default_factory=lambda: {"cloudtrain-run": "r1"})
    token_required: bool = True
    notice: Notice | None = None
    rebalance: datetime | None = None


def get(instance: Asking, path: str) -> tuple[int, str]:
    tokens = Tokens()
    status, token = answer("PUT", "/latest/api/token", TTL, instance, tokens)
    assert status == 200
    header = {"x-aws-ec2-metadata-token": token}
    return answer("GET", f"/latest/meta-data/{path}", header, instance, tokens)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("instance-id", "i-1"),
        ("placement/availability-zone", "us-east-1b"),
        ("placement/region", "us-east-1"),
        ("public-ipv4", "127.70.0.1"),
        ("tags/instance/cloudtrain-run", "r1"),
        ("tags/instance", "cloudtrain-run"),
        ("instance-life-cycle", "spot"),
    ],
)
def test_documents(path: str, text: str) -> None:
    assert get(Asking(), path) == (200, text)


@pytest.mark.parametrize(
    "path",
    ["spot/instance-action", "events/recommendations/rebalance", "tags/instance/other", "none", "spot"],
)
def test_what_is_not_there_is_404(path: str) -> None:
    assert get(Asking(), path) == (404, "")


def test_tags_are_there_only_when_enabled_and_an_address_only_when_given() -> None:
    asking = Asking(tags=None, address=None)
    assert get(asking, "tags/instance/cloudtrain-run") == (404, "")
    assert get(asking, "public-ipv4") == (404, "")
    assert "tags" not in get(asking, "")[1]


def test_notices() -> None:
    asking = Asking(notice=Notice("stop", AT), rebalance=AT)
    status, text = get(asking, "spot/instance-action")
    assert (status, json.loads(text)) == (200, {"action": "stop", "time": "2026-11-21T12:02:00Z"})
    assert json.loads(get(asking, "events/recommendations/rebalance")[1]) == {
        "noticeTime": "2026-11-21T12:02:00Z"
    }
    assert get(asking, "spot/termination-time")[0] == 404
    assert get(Asking(notice=Notice("terminate", AT)), "spot/termination-time") == (
        200,
        "2026-11-21T12:02:00Z",
    )


def test_a_token_is_needed_good_for_one_instance_and_ends() -> None:
    now = [0.0]
    tokens, asking = Tokens(clock=lambda: now[0]), Asking()
    path = "/latest/meta-data/instance-id"
    assert answer("GET", path, {}, asking, tokens) == (401, "")
    assert answer("GET", path, {}, Asking(token_required=False), tokens) == (200, "i-1")
    _, token = answer("PUT", "/latest/api/token", TTL, asking, tokens)
    header = {"X-AWS-EC2-Metadata-Token": token}
    assert answer("GET", path, header, asking, tokens) == (200, "i-1")
    assert answer("GET", path, header, Asking(id="i-2"), tokens) == (401, "")
    assert answer("GET", path, {"X-aws-ec2-metadata-token": "guess"}, asking, tokens) == (401, "")
    now[0] = 61
    assert answer("GET", path, header, asking, tokens) == (401, "")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"X-aws-ec2-metadata-token-ttl-seconds": "0"}, 400),
        ({"X-aws-ec2-metadata-token-ttl-seconds": "21601"}, 400),
        ({**TTL, "X-Forwarded-For": "1.2.3.4"}, 403),
    ],
)
def test_tokens_that_are_not_given(headers: dict[str, str], status: int) -> None:
    assert answer("PUT", "/latest/api/token", headers, Asking(), Tokens())[0] == status
    assert answer("POST", "/latest/meta-data/", {}, Asking(), Tokens())[0] == 405
