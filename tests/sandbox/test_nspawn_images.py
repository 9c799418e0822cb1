"""An image made of a machine is its disk: what was there is there again, on another machine."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from cloudtrain.providers import sandbox
from tests.sandbox.conftest import Cloud
from tests.sandbox.support import refused, until
from tests.support.nspawn import started

CLEAN = "sudo rm -f /etc/ssh/ssh_host_*; sudo truncate -s 0 /etc/machine-id; sudo cloud-init clean --logs"


@pytest.fixture
def cloud(tmp_path: Path) -> Generator[Cloud]:
    with started(tmp_path / "state") as made:
        yield made


def image_of(cloud: Cloud, name: str, **more: object) -> str:
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "made-by", "Value": name}]} for kind in ("image", "snapshot")
    ]
    made = cloud.ec2.create_image(InstanceId=name, Name=f"of {name}", TagSpecifications=tags, **more)
    refused("InvalidAMIName.Duplicate", cloud.ec2.create_image, InstanceId=name, Name=f"of {name}")
    image = str(made["ImageId"])
    until(
        lambda: cloud.ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available",
        "the image is never available",
        timeout=60,
    )
    return image


def snapshots_of(cloud: Cloud, name: str) -> list[str]:
    filters = [{"Name": "tag:made-by", "Values": [name]}]
    found = cloud.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    return [row["SnapshotId"] for row in found]


def test_what_was_installed_is_there_on_another_machine(cloud: Cloud) -> None:
    first = cloud.running()
    cloud.ssh(first, "cloud-init status --wait; echo kept > kept; sudo rm /etc/issue; cat /etc/machine-id")
    identity = cloud.ssh(first, "cat /etc/machine-id")
    cloud.ssh(first, CLEAN)
    image = image_of(cloud, first)
    until(
        lambda: cloud.ssh(first, "echo back", code=None) == "back\n", "it was not started again", timeout=60
    )
    assert cloud.state_of(first) == "running"
    cloud.end(first)

    second = cloud.running(ImageId=image)
    # Another instance: its own key by its own user data, checked strictly, and cloud-init ran anew.
    assert cloud.ssh(second, "cat kept; ls /etc/issue 2>/dev/null; hostname") == f"kept\n{second}\n"
    assert cloud.ssh(second, "cat /etc/machine-id") != identity
    cloud.ssh(second, "echo more > more")
    third = cloud.running(ImageId=image_of(cloud, second, NoReboot=True))
    assert cloud.ssh(third, "cat kept more") == "kept\nmore\n"

    cloud.ec2.deregister_image(ImageId=image)
    refused("InvalidAMIID.NotFound", cloud.ec2.run_instances, **cloud.request(ImageId=image))
    assert cloud.ssh(third, "cat kept") == "kept\n"
    cloud.end(second, third)


def test_images_outlive_the_server(cloud: Cloud) -> None:
    first = cloud.running()
    cloud.ssh(first, "cloud-init status --wait; echo kept > kept")
    cloud.ssh(first, CLEAN)
    cloud.ec2.stop_instances(InstanceIds=[first])
    cloud.until(first, "stopped")
    image = image_of(cloud, first)
    cloud.ec2.create_tags(Resources=[image], Tags=[{"Key": "later", "Value": "too"}])
    before = snapshots_of(cloud, first)
    sandbox.stop(cloud.state)
    cloud.endpoint = sandbox.ensure(cloud.state, machines="nspawn")
    cloud.ec2 = cloud.client("ec2")
    found = cloud.ec2.describe_images(Owners=["self"])["Images"]
    assert [row["ImageId"] for row in found] == [image]
    assert {tag["Key"] for tag in found[0]["Tags"]} == {"made-by", "later"}
    assert snapshots_of(cloud, first) == [found[0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]] == before
    elsewhere = cloud.client("ec2", region_name="eu-west-1")
    assert elsewhere.describe_images(Owners=["self"])["Images"] == []
    second = cloud.running(ImageId=image)
    assert cloud.ssh(second, "cat kept") == "kept\n"
    cloud.end(second)
