"""A pushed key lets in for a while, and only the user it is for."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from typing import Any

import pytest

from cloudtrain.providers import sandbox
from cloudtrain.ssh import keys
from tests.sandbox.conftest import Cloud, start
from tests.sandbox.support import DELAYS, refused, until


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    state = tmp_path_factory.mktemp("connect") / "state"
    try:
        yield start(state, f"{DELAYS},pushed_key=2")
    finally:
        sandbox.stop(state)


def enter(cloud: Cloud, name: str) -> bool:
    options = [
        option.replace(str(cloud.folder / "key"), str(cloud.folder / "pushed"))
        for option in cloud.ssh_options()
    ]
    command = ["ssh", *options, cloud.address(name), "true"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_a_pushed_key_lets_in_for_a_while(cloud: Cloud, machine: str) -> None:
    pair = keys.generate("pushed")
    keys.write_private(cloud.folder / "pushed", pair.private)
    assert not enter(cloud, machine)
    push = cloud.client("ec2-instance-connect").send_ssh_public_key
    asked: dict[str, Any] = {"InstanceId": machine, "SSHPublicKey": pair.public}
    assert push(**asked, InstanceOSUser="somebody-else")["Success"]
    assert not enter(cloud, machine)
    assert push(**asked, InstanceOSUser=cloud.endpoint.login_user)["Success"]
    assert enter(cloud, machine)
    until(lambda: not enter(cloud, machine), "the key is good for ever")
    assert cloud.ssh(machine, "echo in") == "in\n"


def test_what_cannot_be_pushed(cloud: Cloud, machine: str) -> None:
    push = cloud.client("ec2-instance-connect").send_ssh_public_key
    key = keys.generate("pushed").public
    asked: dict[str, Any] = {"InstanceOSUser": "ubuntu", "SSHPublicKey": key}
    missing = "EC2InstanceNotFoundException"
    refused(missing, push, **asked, InstanceId="i-0123456789abcdef0")
    refused(missing, push, **asked, InstanceId=machine, AvailabilityZone="us-east-1f")
    west = cloud.client("ec2-instance-connect", region_name="us-west-2")
    refused(missing, west.send_ssh_public_key, **asked, InstanceId=machine)
    garbage = {**asked, "SSHPublicKey": "garbage " * 20}
    refused("InvalidArgsException", push, **garbage, InstanceId=machine)
    cloud.ec2.stop_instances(InstanceIds=[machine])
    refused("EC2InstanceStateInvalidException", push, **asked, InstanceId=machine)
    cloud.until(machine, "stopped")
