"""EC2's behaviour where moto's differs, over HTTP with boto3."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloudtrain.ssh import keys
from tests.sandbox.conftest import Cloud
from tests.sandbox.support import UBUNTU, refused, until

TAGS = [{"Key": "cloudtrain-run", "Value": "r1"}]


def ids_by_token(cloud: Cloud, token: str) -> list[str]:
    filters = [{"Name": "client-token", "Values": [token]}]
    rows = cloud.ec2.describe_instances(Filters=filters)["Reservations"]
    return [item["InstanceId"] for row in rows for item in row["Instances"]]


def test_a_token_means_one_instance(cloud: Cloud) -> None:
    request = cloud.request(ClientToken="one")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(cloud.ec2.run_instances, **request) for _ in range(4)]
        answers = [call.result() for call in calls]
    assert len({a["Instances"][0]["InstanceId"] for a in answers}) == 1
    assert len({a["ReservationId"] for a in answers}) == 1
    name = answers[0]["Instances"][0]["InstanceId"]
    refused(
        "IdempotentParameterMismatch", cloud.ec2.run_instances, **{**request, "InstanceType": "g5.xlarge"}
    )
    cloud.until(name, "running")
    assert ids_by_token(cloud, "one") == [name]
    assert ids_by_token(cloud, "never used") == []
    cloud.end(name)
    refused("IdempotentInstanceTerminated", cloud.ec2.run_instances, **request)


def test_states_take_time_and_a_new_instance_is_not_seen_at_once(cloud: Cloud) -> None:
    answer = cloud.ec2.run_instances(**cloud.request())["Instances"][0]
    name = answer["InstanceId"]
    assert answer["State"]["Name"] == "pending"
    assert "PublicIpAddress" not in answer
    refused("InvalidInstanceID.NotFound", cloud.ec2.describe_instances, InstanceIds=[name])
    everything = cloud.ec2.describe_instances()["Reservations"]
    assert name not in [item["InstanceId"] for row in everything for item in row["Instances"]]
    until(lambda: cloud.state_of(name) != "unseen", "it is never seen")
    pending = cloud.describe(name)
    assert pending["State"]["Name"] == "pending"
    assert "PublicIpAddress" not in pending
    cloud.until(name, "running")
    assert cloud.address(name).startswith("127.")
    stopping = cloud.ec2.stop_instances(InstanceIds=[name])["StoppingInstances"][0]
    assert (stopping["PreviousState"]["Name"], stopping["CurrentState"]["Name"]) == ("running", "stopping")
    assert cloud.state_of(name) == "stopping"
    refused("IncorrectInstanceState", cloud.ec2.start_instances, InstanceIds=[name])
    cloud.until(name, "stopped")
    assert "PublicIpAddress" not in cloud.describe(name)
    cloud.ec2.stop_instances(InstanceIds=[name])
    ending = cloud.ec2.terminate_instances(InstanceIds=[name])["TerminatingInstances"][0]
    assert ending["CurrentState"]["Name"] == "shutting-down"
    assert cloud.state_of(name) == "shutting-down"
    cloud.until(name, "terminated")
    again = cloud.ec2.terminate_instances(InstanceIds=[name])["TerminatingInstances"][0]
    assert again["CurrentState"]["Name"] == "terminated"
    refused("IncorrectInstanceState", cloud.ec2.start_instances, InstanceIds=[name])
    refused("IncorrectInstanceState", cloud.ec2.stop_instances, InstanceIds=[name])


def test_an_instance_ended_while_pending_ends(cloud: Cloud) -> None:
    name = cloud.launch()
    cloud.end(name)
    assert not (cloud.state / "home" / name).exists()


def test_one_unknown_id_fails_the_whole_call(cloud: Cloud, machine: str) -> None:
    both = [machine, "i-0123456789abcdef0"]
    refused("InvalidInstanceID.NotFound", cloud.ec2.terminate_instances, InstanceIds=both)
    assert cloud.state_of(machine) == "running"


def test_everything_is_tagged_in_the_launch_call(cloud: Cloud) -> None:
    kinds = ("instance", "volume", "network-interface")
    name = cloud.running(
        TagSpecifications=[{"ResourceType": kind, "Tags": TAGS} for kind in kinds],
        BlockDeviceMappings=[
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {
                    "VolumeSize": 30,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    )
    filters: Any = [{"Name": "tag:cloudtrain-run", "Values": ["r1"]}]
    assert cloud.describe(name)["Tags"] == TAGS
    volume = cloud.ec2.describe_volumes(Filters=filters)["Volumes"][0]
    assert (volume["Size"], volume["Encrypted"]) == (30, True)
    assert volume["Attachments"][0]["DeleteOnTermination"] is True
    interface = cloud.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"][0]
    assert interface["Attachment"]["InstanceId"] == name
    cloud.end(name)
    assert cloud.ec2.describe_volumes(Filters=filters)["Volumes"] == []
    assert cloud.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"] == []


def test_a_spot_launch_takes_the_tags_of_its_request(cloud: Cloud) -> None:
    specs = [{"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "spot-instances-request")]
    options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    market = {"MarketType": "spot", "SpotOptions": options}
    name = cloud.running(TagSpecifications=specs, InstanceMarketOptions=market)
    assert cloud.describe(name)["InstanceLifecycle"] == "spot"
    request_id = cloud.describe(name)["SpotInstanceRequestId"]
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    cloud.end(name)


def test_a_group_in_use_cannot_be_deleted(cloud: Cloud) -> None:
    group = cloud.ec2.create_security_group(
        GroupName="ours",
        Description="ours",
        TagSpecifications=[{"ResourceType": "security-group", "Tags": TAGS}],
    )["GroupId"]
    rule = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}]
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
    refused(
        "InvalidPermission.Duplicate",
        cloud.ec2.authorize_security_group_ingress,
        GroupId=group,
        IpPermissions=rule,
    )
    name = cloud.running(SecurityGroupIds=[group])
    refused("DependencyViolation", cloud.ec2.delete_security_group, GroupId=group)
    cloud.ec2.terminate_instances(InstanceIds=[name])
    refused("DependencyViolation", cloud.ec2.delete_security_group, GroupId=group)
    cloud.until(name, "terminated")
    cloud.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rule)
    cloud.ec2.delete_security_group(GroupId=group)
    refused("InvalidGroup.NotFound", cloud.ec2.delete_security_group, GroupId=group)


def test_key_pairs(cloud: Cloud) -> None:
    pair = keys.generate("pair")
    request = {"KeyName": "pair", "PublicKeyMaterial": pair.public.encode()}
    cloud.ec2.import_key_pair(**request)
    refused("InvalidKeyPair.Duplicate", cloud.ec2.import_key_pair, **request)
    garbage = {"KeyName": "garbage", "PublicKeyMaterial": b"garbage"}
    refused("InvalidKeyPair.Format", cloud.ec2.import_key_pair, **garbage)
    cloud.ec2.delete_key_pair(KeyName="pair")
    cloud.ec2.delete_key_pair(KeyName="pair")
    refused("InvalidKeyPair.NotFound", cloud.ec2.run_instances, **cloud.request(KeyName="pair"))


@pytest.mark.parametrize(
    ("parameter", "floor"),
    [
        ("/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id", 8),
        ("/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id", 8),
        ("/aws/service/deeplearning/ami/x86_64/base-with-single-cuda-ubuntu-22.04/latest/ami-id", 35),
        ("/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id", 75),
    ],
)
def test_image_parameters_lead_to_images_with_a_smallest_volume(
    cloud: Cloud, parameter: str, floor: int
) -> None:
    image_id = cloud.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    image = cloud.ec2.describe_images(ImageIds=[image_id])["Images"][0]
    assert image["RootDeviceName"] == "/dev/sda1"
    assert image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == floor
    small = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": floor - 1}}]
    request = cloud.request(ImageId=image_id, BlockDeviceMappings=small)
    refused("InvalidBlockDeviceMapping", cloud.ec2.run_instances, **request)


def test_images_are_found_by_name_too(cloud: Cloud) -> None:
    filters = [{"Name": "name", "Values": ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"]}]
    found = cloud.ec2.describe_images(Owners=["099720109477"], Filters=filters)["Images"]
    assert [image["ImageId"] for image in found] == [UBUNTU]
    refused("ParameterNotFound", cloud.client("ssm").get_parameter, Name="/aws/service/none")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "g4dnn.xlarge"}, "InvalidInstanceType.NotFound"),
        ({"KeyName": "none"}, "InvalidKeyPair.NotFound"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_launch_that_ec2_refuses_is_refused(cloud: Cloud, change: dict[str, Any], code: str) -> None:
    before = len(cloud.ec2.describe_instances()["Reservations"])
    refused(code, cloud.ec2.run_instances, **cloud.request(**change))
    assert len(cloud.ec2.describe_instances()["Reservations"]) == before


def test_what_a_plan_asks_is_answered(cloud: Cloud) -> None:
    assert cloud.client("sts").get_caller_identity()["Account"] == "123456789012"
    types = cloud.ec2.describe_instance_types(InstanceTypes=["g4dn.xlarge"])["InstanceTypes"]
    assert types[0]["GpuInfo"]["Gpus"][0]["Name"] == "T4"
    offers = cloud.ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["g4dn.xlarge"]}]
    )
    assert offers["InstanceTypeOfferings"]
    assert cloud.ec2.describe_spot_price_history(InstanceTypes=["g4dn.xlarge"])["SpotPriceHistory"]
    assert cloud.ec2.describe_subnets()["Subnets"]
    filters = [
        {"Type": "TERM_MATCH", "Field": "instanceType", "Value": "g4dn.xlarge"},
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "us-east-1"},
    ]
    rows = cloud.client("pricing").get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
    assert any("0.526" in row for row in rows)


def test_a_call_that_is_not_emulated_is_an_error_of_its_own(cloud: Cloud) -> None:
    refused("InvalidAction", cloud.ec2.get_spot_placement_scores, TargetCapacity=1)


def test_every_call_is_recorded(cloud: Cloud) -> None:
    cloud.ec2.describe_vpcs()
    row = json.loads((cloud.state / "calls.jsonl").read_text().splitlines()[-1])
    assert (row["service"], row["call"], row["status"]) == ("ec2", "DescribeVpcs", 200)
    assert abs(row["time"] - time.time()) < 10
