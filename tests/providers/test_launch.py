"""What one launch call says, and what each refusal of it means."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloudtrain import errors
from cloudtrain.models.plan import Image, LaunchSpec
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import run_tags
from cloudtrain.providers.aws import machines
from cloudtrain.providers.aws.errors import CODES
from cloudtrain.providers.aws.launch import request_of, run_once
from cloudtrain.providers.base import AccessSpec
from cloudtrain.ssh import keys
from tests.support.endpoint import Endpoint, Refusal, served

RUN = RunRef("helmets", "0123abcd", "0123456789ab")
KEY = keys.generate("test").public
SPEC = LaunchSpec(
    type="g4dn.xlarge",
    market="on-demand",
    zone="us-east-1a",
    image=Image("ami-1", "image", "ubuntu", "/dev/sda1", 8),
    volume_gb=40,
    user_data="#cloud-config\n",
    key_name="key",
    security_group="sg-1",
    subnet=None,
    tags=run_tags(RUN),
    after_power_off="terminate",
)


@dataclass
class Stored:
    """Launch requests in memory."""

    kept: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def store(self, token: str, request: bytes) -> None:
        self.kept[token] = request

    def load(self, token: str) -> bytes | None:
        return self.kept.get(token)


@pytest.fixture
def cloud() -> Generator[Endpoint]:
    with served() as endpoint:
        yield endpoint


def spec(cloud: Endpoint, run: RunRef = RUN, **changes: Any) -> LaunchSpec:
    """A launch that this endpoint accepts."""
    access = cloud.provider().prepare_access(AccessSpec(run, KEY, "52.95.4.1", 22))
    image = replace(SPEC.image, id=cloud.image())
    return replace(
        SPEC,
        image=image,
        key_name=access.key_name,
        security_group=access.security_group,
        tags=run_tags(run),
        **changes,
    )


def quick(cloud: Endpoint, what: LaunchSpec, token: str = "token") -> Any:
    return run_once(cloud.provider().clients, what, token, Stored(), sleep=lambda _: None)


def test_spot_is_persistent_with_stop_and_names_no_shutdown_behaviour() -> None:
    request = request_of(replace(SPEC, market="spot"), "token")
    assert request["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
    }
    assert "InstanceInitiatedShutdownBehavior" not in request
    kinds = {row["ResourceType"] for row in request["TagSpecifications"]}
    assert kinds == {"instance", "volume", "network-interface", "spot-instances-request"}


@pytest.mark.parametrize("power_off", ["stop", "terminate"])
def test_on_demand_takes_its_shutdown_behaviour_from_the_lease(power_off: Any) -> None:
    request = request_of(replace(SPEC, after_power_off=power_off), "token")
    assert request["InstanceInitiatedShutdownBehavior"] == power_off
    assert "InstanceMarketOptions" not in request
    assert "spot-instances-request" not in json.dumps(request)


@pytest.mark.parametrize("public", [True, False])
def test_a_public_address_that_is_decided_on_goes_with_subnet_and_group_into_the_interface(
    public: bool,
) -> None:
    request = request_of(replace(SPEC, subnet="subnet-1", public_address=public), "t")
    assert request["NetworkInterfaces"] == [
        {
            "DeviceIndex": 0,
            "AssociatePublicIpAddress": public,
            "DeleteOnTermination": True,
            "Groups": [SPEC.security_group],
            "SubnetId": "subnet-1",
        }
    ]
    assert not {"SubnetId", "SecurityGroupIds", "Placement"} & request.keys()


@pytest.mark.parametrize(("containers", "hops"), [(False, 1), (True, 2)])
def test_metadata_takes_a_token_and_one_hop_more_only_for_containers(containers: bool, hops: int) -> None:
    assert request_of(replace(SPEC, containers=containers), "token")["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpEndpoint": "enabled",
        "HttpPutResponseHopLimit": hops,
        "InstanceMetadataTags": "enabled",
    }


def test_tag_keys_can_be_read_through_the_metadata_service() -> None:
    for key in run_tags(RUN):
        assert "/" not in key
        assert " " not in key


def test_the_volume_is_encrypted_and_goes_with_the_machine_by_our_own_word() -> None:
    assert request_of(SPEC, "token")["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/sda1",
            "Ebs": {"VolumeSize": 40, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
        }
    ]


FAMILIES = {
    "VcpuLimitExceeded": errors.QuotaError,
    "MaxSpotInstanceCountExceeded": errors.QuotaError,
    "InsufficientInstanceCapacity": errors.CapacityError,
    "Unsupported": errors.CapacityError,
    "SpotMaxPriceTooLow": errors.CapacityError,
    "UnauthorizedOperation": errors.AuthorizationError,
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": errors.AuthorizationError,
    "PendingVerification": errors.AccountError,
    "OptInRequired": errors.AccountError,
    "Blocked": errors.AccountError,
    "AuthFailure": errors.CredentialsError,
    "ExpiredToken": errors.CredentialsError,
    "InvalidBlockDeviceMapping": errors.CloudError,
    "IdempotentInstanceTerminated": errors.GoneError,
    "SomethingQuiteNew": errors.CloudError,
}


@pytest.mark.parametrize(("code", "kind"), FAMILIES.items(), ids=str)
def test_each_refusal_is_of_one_family_and_asked_once(cloud: Endpoint, code: str, kind: type) -> None:
    what = spec(cloud)
    cloud.refuse["RunInstances"] = Refusal(code, "because")
    with pytest.raises(errors.CloudError) as caught:
        quick(cloud, what)
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert "because" in caught.value.message
    assert caught.value.hint or code == "SomethingQuiteNew"
    assert len(cloud.asked("RunInstances")) == 1


def test_capacity_with_http_500_is_not_asked_again(cloud: Endpoint) -> None:
    what = spec(cloud)
    cloud.refuse["RunInstances"] = Refusal("InsufficientInstanceCapacity", "none", 500)
    with pytest.raises(errors.CapacityError):
        quick(cloud, what)
    assert len(cloud.asked("RunInstances")) == 1


def test_the_free_plan_is_the_account_and_neither_quota_nor_capacity(cloud: Endpoint) -> None:
    what = spec(cloud)
    text = "The specified instance type is not eligible for Free Tier."
    cloud.refuse["RunInstances"] = Refusal("InvalidParameterCombination", text)
    with pytest.raises(errors.AccountError, match="Free Tier") as caught:
        quick(cloud, what)
    assert "free plan" in caught.value.hint
    cloud.refuse["RunInstances"] = Refusal("InvalidParameterCombination", "You can't combine these freely")
    with pytest.raises(errors.CloudError) as other:
        quick(cloud, what)
    assert type(other.value) is errors.CloudError


def test_no_remedy_is_missing_in_the_table() -> None:
    assert all(meaning.hint for meaning in CODES.values())


def test_a_token_used_with_other_values_names_what_it_made(cloud: Endpoint) -> None:
    what = spec(cloud)
    cloud.refuse["RunInstances"] = Refusal("IdempotentParameterMismatch", "inconsistent")
    with pytest.raises(errors.CloudError, match="inconsistent") as caught:
        quick(cloud, what)
    assert "cloudtrain down" in caught.value.hint
    assert not isinstance(caught.value, errors.LostAnswerError)


def test_an_answer_that_is_lost_for_good_says_so(cloud: Endpoint) -> None:
    what = spec(cloud)
    cloud.refuse["RunInstances"] = Refusal("InternalError", "oops", 500, after=True)
    with pytest.raises(errors.LostAnswerError, match="may have been started"):
        quick(cloud, what)


def test_a_refused_spot_launch_leaves_no_request_open(cloud: Endpoint) -> None:
    what = spec(cloud, market="spot")
    ec2 = cloud.provider().clients.ec2
    other = RunRef("helmets", "99999999", "ffffffffffff")
    for run in (RUN, other):
        made = ec2.request_spot_instances(
            InstanceCount=1,
            LaunchSpecification={"ImageId": what.image.id, "InstanceType": "g4dn.xlarge"},
        )["SpotInstanceRequests"][0]
        name = str(made.get("SpotInstanceRequestId"))
        pairs: Any = [{"Key": key, "Value": value} for key, value in run_tags(run).items()]
        ec2.create_tags(Resources=[name], Tags=pairs)
    _leave_open()
    cloud.refuse["RunInstances"] = Refusal("InsufficientInstanceCapacity", "none", 500)
    with pytest.raises(errors.CapacityError):
        quick(cloud, what)
    assert len(cloud.asked("CancelSpotInstanceRequests")) == 1
    left = cloud.provider().clients.ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    still = [row for row in left if row.get("State") == "open"]
    owners = [
        pair.get("Value")
        for row in still
        for pair in row.get("Tags", [])
        if pair.get("Key") == "cloudtrain-owner"
    ]
    assert owners == ["ffffffffffff"]


def _leave_open() -> None:
    """moto fulfils every request at once; here they wait for capacity, as on AWS."""
    from moto.ec2.models import ec2_backends

    for request in ec2_backends["123456789012"]["us-east-1"].spot_instance_requests.values():
        record: Any = request
        record.state, record.instance = "open", _Nothing()


class _Nothing:
    id = None


def test_a_new_machine_that_is_not_known_yet_is_asked_for_again(cloud: Endpoint) -> None:
    machine = quick(cloud, spec(cloud))
    cloud.refuse["TerminateInstances"] = Refusal("InvalidInstanceID.NotFound", "no such", times=2)
    slept: list[float] = []
    machines.terminate(
        cloud.provider().clients,
        (machine.id,),
        30,
        launched={machine.id: datetime.now(UTC)},
        sleep=slept.append,
    )
    assert len(cloud.asked("TerminateInstances")) == 3
    assert len(slept) >= 2
    found = machines.describe(cloud.provider().clients, machine.id)
    assert found is not None
    assert found.state == "terminated"


def test_an_old_machine_that_is_not_known_is_gone(cloud: Endpoint) -> None:
    born = {"i-0123456789abcdef0": datetime.now(UTC) - timedelta(seconds=61)}
    machines.terminate(cloud.provider().clients, tuple(born), 30, launched=born, sleep=lambda _: None)
    assert len(cloud.asked("TerminateInstances")) == 1


def test_an_answer_that_is_no_answer_is_a_lost_one(cloud: Endpoint) -> None:
    """A proxy's page instead of XML: the machine may have been started behind it."""
    what = spec(cloud)
    cloud.refuse["RunInstances"] = Refusal("", "", 200, after=True, body=b"<html>please sign in")
    with pytest.raises(errors.LostAnswerError, match="may have been started"):
        quick(cloud, what)
    cloud.refuse["RunInstances"] = Refusal("", "", 502, after=True, body=b"")
    with pytest.raises(errors.LostAnswerError, match="may have been started"):
        quick(cloud, what)
    cloud.refuse["TerminateInstances"] = Refusal("", "", 502, body=b"")
    with pytest.raises(errors.CloudError, match="502"):
        machines.terminate(cloud.provider().clients, ("i-0123456789abcdef0",), 5, sleep=lambda _: None)
