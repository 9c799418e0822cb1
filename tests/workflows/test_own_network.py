"""The whole road in a network of the user's own: what was there before is there afterwards."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.road import Road, home

pytestmark = pytest.mark.road


@pytest.fixture
def way(tmp_path: Path) -> Generator[Road]:
    with home(tmp_path / "home") as made:
        yield Road(tmp_path / "road", made)


def test_up_and_down_in_a_subnet_and_a_group_of_ones_own(way: Road) -> None:
    ec2: Any = way.running.ec2
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    zone = ec2.describe_availability_zones()["AvailabilityZones"][1]["ZoneName"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone=zone)["Subnet"][
        "SubnetId"
    ]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    group = ec2.create_security_group(GroupName="lab", Description="ours", VpcId=vpc)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])

    def rules() -> Any:
        return ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]

    config = way.project / "cloudtrain.yaml"
    written, before = config.read_text(), rules()
    config.write_text(f"{written}instance: {{subnet: {subnet}, security_group: sg-0123456789abcdef0}}\n")
    assert "sg-0123456789abcdef0" in way.call("up", "-y", code=2).stderr
    assert way.alive() == []

    config.write_text(f"{written}instance: {{subnet: {subnet}, security_group: {group}}}\n")
    way.call("up", "-y")
    (name,) = way.alive()
    found = ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]
    assert (found["SubnetId"], found["Placement"]["AvailabilityZone"]) == (subnet, zone)
    assert [one["GroupId"] for one in found["SecurityGroups"]] == [group]
    assert rules() == before  # a group of one's own is not ours to open
    way.wait_for_end()
    assert "0 left" in way.call("down").stderr
    assert way.left() == ["lab"]
    assert rules() == before
    assert [one["SubnetId"] for one in ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]] == [subnet]
