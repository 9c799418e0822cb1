"""Faults strike the call they name, before or after its effect."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from cloudtrain.providers import sandbox
from tests.sandbox.conftest import Cloud, start
from tests.sandbox.support import refused
from tests.support.faults import arm, arm_all, calls, disarm


@pytest.fixture(autouse=True)
def nothing_armed(cloud: Cloud) -> Generator[None]:
    yield
    disarm(cloud)


def groups(cloud: Cloud) -> set[str]:
    return {row["GroupName"] for row in cloud.ec2.describe_security_groups()["SecurityGroups"]}


def make(cloud: Cloud, name: str) -> None:
    cloud.ec2.create_security_group(GroupName=name, Description="a group")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_before_or_after_the_effect(cloud: Cloud, when: str) -> None:
    arm(cloud, call="CreateSecurityGroup", when=when, error="RequestLimitExceeded")
    with pytest.raises(ClientError) as error:
        make(cloud, f"error-{when}")
    answer: Any = error.value.response
    assert answer["Error"]["Code"] == "RequestLimitExceeded"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert (f"error-{when}" in groups(cloud)) == (when == "after")
    assert calls(cloud)[-2]["error"] == "RequestLimitExceeded"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reset_before_or_after_the_effect(cloud: Cloud, when: str) -> None:
    arm(cloud, call="CreateSecurityGroup", when=when, reset=True)
    with pytest.raises(ConnectionClosedError) as error:
        make(cloud, f"reset-{when}")
    assert "ConnectionResetError" in repr(error.value.__context__) + repr(error.value.kwargs)
    assert (f"reset-{when}" in groups(cloud)) == (when == "after")
    assert calls(cloud)[-2]["error"] == "reset"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stall_answers_late(cloud: Cloud, when: str) -> None:
    arm(cloud, call="CreateSecurityGroup", when=when, stall=0.6)
    began = time.monotonic()
    make(cloud, f"late-{when}")
    assert 0.6 <= time.monotonic() - began < 5
    assert f"late-{when}" in groups(cloud)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stall_without_end(cloud: Cloud, when: str) -> None:
    impatient = cloud.client("ec2", config=Config(retries={"total_max_attempts": 1}, read_timeout=0.5))
    arm(cloud, call="CreateSecurityGroup", when=when, stall=None)
    with pytest.raises(ReadTimeoutError):
        impatient.create_security_group(GroupName=f"never-{when}", Description="a group")
    assert (f"never-{when}" in groups(cloud)) == (when == "after")


def test_the_nth_of_an_action_or_of_any_and_so_many_times(cloud: Cloud) -> None:
    arm(cloud, at=2, times=2, call="DescribeVpcs", error="InternalError")
    cloud.ec2.describe_vpcs()
    cloud.ec2.describe_subnets()
    refused("InternalError", cloud.ec2.describe_vpcs)
    refused("InternalError", cloud.ec2.describe_vpcs)
    cloud.ec2.describe_vpcs()
    arm(cloud, at=2, error="UnauthorizedOperation")
    cloud.ec2.describe_vpcs()
    refused("UnauthorizedOperation", cloud.ec2.describe_subnets)
    arm(cloud, times=0, service="sts", error="ExpiredToken")
    for _ in range(3):
        refused("ExpiredToken", cloud.client("sts").get_caller_identity)
    cloud.ec2.describe_vpcs()


def test_several_at_once_and_in_either_protocol(cloud: Cloud) -> None:
    arm_all(
        cloud,
        {"call": "GetProducts", "error": "ThrottlingException"},
        {"call": "DescribeVpcs", "at": 2, "reset": True},
    )
    refused("ThrottlingException", cloud.client("pricing").get_products, ServiceCode="AmazonEC2")
    cloud.ec2.describe_vpcs()
    with pytest.raises(ConnectionClosedError):
        cloud.ec2.describe_vpcs()


def test_calls_are_recorded_beyond_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, state = tmp_path / "record.jsonl", tmp_path / "state"
    monkeypatch.setenv("CLOUDTRAIN_SANDBOX_RECORD", str(record))
    try:
        for _ in range(2):
            cloud = start(state)
            cloud.folder.rename(tmp_path / f"client-{time.monotonic_ns()}")
            cloud.ec2.describe_vpcs()
            refused("InvalidInstanceID.NotFound", cloud.ec2.terminate_instances, InstanceIds=["i-0"])
            sandbox.stop(state)
    finally:
        sandbox.stop(state)
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    seen = [(row["service"], row["call"], row["region"], row["error"]) for row in rows]
    once = [
        ("ec2", "DescribeVpcs", "us-east-1", ""),
        ("ec2", "TerminateInstances", "us-east-1", "InvalidInstanceID.NotFound"),
    ]
    assert seen == once * 2
