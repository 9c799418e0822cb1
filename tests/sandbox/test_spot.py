"""Spot requests as AWS documents them; docs/concepts/sandbox-spot.md names each source."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from cloudtrain.providers import sandbox
from tests.sandbox.conftest import Cloud, start
from tests.sandbox.support import DELAYS, refused, until

TAGS = [{"Key": "cloudtrain-run", "Value": "r1"}, {"Key": "cloudtrain-owner", "Value": "me"}]
PERSISTENT = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    state = tmp_path_factory.mktemp("spot") / "state"
    try:
        yield start(state, f"{DELAYS},relaunch=0.6,restore=0.2")
    finally:
        sandbox.stop(state)


@pytest.fixture(autouse=True)
def nothing_is_reclaimed(cloud: Cloud) -> Generator[None]:
    yield
    for name in ("spot.json", "account.json"):
        (cloud.state / name).unlink(missing_ok=True)


def tell(cloud: Cloud, file: str, **settings: Any) -> None:
    part = cloud.state / f"{file}.part"
    part.write_text(json.dumps(settings))
    part.replace(cloud.state / file)


def spot(**options: Any) -> dict[str, Any]:
    kinds = ("instance", "spot-instances-request")
    return {
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options},
        "TagSpecifications": [{"ResourceType": kind, "Tags": TAGS} for kind in kinds],
    }


def one_of(cloud: Cloud, name: str) -> dict[str, Any]:
    request_id = cloud.describe(name)["SpotInstanceRequestId"]
    return look(cloud, request_id)


def look(cloud: Cloud, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request_id])[
        "SpotInstanceRequests"
    ][0]
    return found


def where(cloud: Cloud, request_id: str) -> tuple[str, str]:
    found = look(cloud, request_id)
    return found["State"], found["Status"]["Code"]


def until_at(cloud: Cloud, request_id: str, *there: str) -> None:
    until(lambda: where(cloud, request_id) == there, f"{where(cloud, request_id)} never became {there}")


def finish(cloud: Cloud, name: str, request_id: str) -> None:
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    cloud.end(name)


def found(cloud: Cloud, name: str, *values: str) -> list[str]:
    rows = cloud.ec2.describe_spot_instance_requests(Filters=[{"Name": name, "Values": list(values)}])
    return [row["SpotInstanceRequestId"] for row in rows["SpotInstanceRequests"]]


def instances_of(cloud: Cloud, request_id: str) -> list[str]:
    rows = cloud.ec2.describe_instances()["Reservations"]
    return [
        item["InstanceId"]
        for row in rows
        for item in row["Instances"]
        if item.get("SpotInstanceRequestId") == request_id
    ]


def test_a_launch_makes_a_request_tagged_in_the_same_call(cloud: Cloud) -> None:
    answer = cloud.ec2.run_instances(**cloud.request(**spot(**PERSISTENT)))["Instances"][0]
    name, request_id = answer["InstanceId"], answer["SpotInstanceRequestId"]
    assert answer["InstanceLifecycle"] == "spot"
    cloud.until(name, "running")
    assert cloud.describe(name)["SpotInstanceRequestId"] == request_id
    request = look(cloud, request_id)
    assert request["Tags"] == TAGS
    assert (request["Type"], request["InstanceId"]) == ("persistent", name)
    assert request["InstanceInterruptionBehavior"] == "stop"
    assert request["LaunchedAvailabilityZone"] == cloud.describe(name)["Placement"]["AvailabilityZone"]
    assert where(cloud, request_id) == ("active", "fulfilled")
    assert found(cloud, "tag:cloudtrain-run", "r1") == [request_id]
    assert found(cloud, "tag:cloudtrain-run", "r2") == []
    assert found(cloud, "tag-key", "cloudtrain-*") == [request_id]
    assert found(cloud, "instance-id", name) == [request_id]
    assert found(cloud, "state", "active", "open") == [request_id]
    assert found(cloud, "state", "closed") == []
    refused("InvalidParameterValue", found, cloud=cloud, name="no-such-filter")
    finish(cloud, name, request_id)
    assert where(cloud, request_id) == ("cancelled", "instance-terminated-by-user")


def test_instances_are_found_by_market_and_request(cloud: Cloud) -> None:
    name, other = cloud.running(**spot()), cloud.running()
    request_id = cloud.describe(name)["SpotInstanceRequestId"]

    def ask(**filters: str) -> list[str]:
        asked = [{"Name": key.replace("_", "-"), "Values": [value]} for key, value in filters.items()]
        rows = cloud.ec2.describe_instances(Filters=asked)["Reservations"]
        return [item["InstanceId"] for row in rows for item in row["Instances"]]

    assert ask(instance_lifecycle="spot", instance_state_name="running") == [name]
    assert ask(spot_instance_request_id=request_id) == [name]
    assert ask(spot_instance_request_id=request_id, instance_id=other) == []
    assert ask(instance_lifecycle="spot", spot_instance_request_id="sir-00000000") == []
    cloud.end(name, other)


def test_an_unknown_request_fails_the_whole_call(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT))
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    both = [request_id, "sir-00000000"]
    code = "InvalidSpotInstanceRequestID.NotFound"
    refused(code, cloud.ec2.cancel_spot_instance_requests, SpotInstanceRequestIds=both)
    refused(code, cloud.ec2.describe_spot_instance_requests, SpotInstanceRequestIds=both)
    elsewhere = cloud.client("ec2", region_name="us-west-2")
    refused(code, elsewhere.describe_spot_instance_requests, SpotInstanceRequestIds=[request_id])
    assert where(cloud, request_id) == ("active", "fulfilled")
    finish(cloud, name, request_id)


def test_a_user_stop_disables_and_a_start_makes_active_again(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT))
    request_id, before = one_of(cloud, name)["SpotInstanceRequestId"], cloud.address(name)
    cloud.ec2.stop_instances(InstanceIds=[name])
    until_at(cloud, request_id, "disabled", "instance-stopped-by-user")
    assert cloud.state_of(name) == "stopped"
    assert look(cloud, request_id)["InstanceId"] == name
    cloud.ec2.start_instances(InstanceIds=[name])
    assert where(cloud, request_id) == ("open", "pending-evaluation")
    until_at(cloud, request_id, "active", "fulfilled")
    assert (cloud.state_of(name), cloud.address(name) != before) == ("running", True)
    assert instances_of(cloud, request_id) == [name]
    finish(cloud, name, request_id)


def test_a_one_time_request_cannot_be_stopped_and_closes_with_its_instance(cloud: Cloud) -> None:
    name = cloud.running(**spot())
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    assert look(cloud, request_id)["Type"] == "one-time"
    refused("UnsupportedOperation", cloud.ec2.stop_instances, InstanceIds=[name])
    assert cloud.state_of(name) == "running"
    cloud.end(name)
    until_at(cloud, request_id, "closed", "instance-terminated-by-user")


def test_a_cancel_lets_the_instance_run_but_not_stop(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT))
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    told = cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    assert told["CancelledSpotInstanceRequests"] == [
        {"SpotInstanceRequestId": request_id, "State": "cancelled"}
    ]
    assert where(cloud, request_id) == ("cancelled", "request-canceled-and-instance-running")
    assert cloud.ssh(name, "echo alive") == "alive\n"
    refused("UnsupportedOperation", cloud.ec2.stop_instances, InstanceIds=[name])
    finish(cloud, name, request_id)


def test_a_cancel_while_the_instance_is_stopped_ends_it(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT))
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    cloud.ec2.stop_instances(InstanceIds=[name])
    until_at(cloud, request_id, "disabled", "instance-stopped-by-user")
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    cloud.until(name, "terminated")
    assert where(cloud, request_id) == ("cancelled", "instance-terminated-by-user")
    assert not (cloud.state / "home" / name).exists()


def test_terminating_without_a_cancel_brings_another_instance(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT), ClientToken="relaunched")
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    cloud.ec2.create_tags(Resources=[request_id], Tags=[{"Key": "added", "Value": "later"}])
    cloud.end(name)
    until_at(cloud, request_id, "open", "instance-terminated-by-user")
    assert "InstanceId" not in look(cloud, request_id)
    until_at(cloud, request_id, "active", "fulfilled")
    other = look(cloud, request_id)["InstanceId"]
    assert other != name
    cloud.until(other, "running")
    assert cloud.ssh(other, "echo $HOME").strip().endswith(other)
    tags = {tag["Key"]: tag["Value"] for tag in cloud.describe(other)["Tags"]}
    assert tags == {"cloudtrain-run": "r1", "cloudtrain-owner": "me", "added": "later"}
    data = cloud.ec2.describe_instance_attribute(InstanceId=other, Attribute="userData")
    first = cloud.ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")
    assert data["UserData"] == first["UserData"]
    finish(cloud, other, request_id)


def test_a_cancel_in_time_brings_no_other_instance(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT))
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    cloud.end(name)
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    assert where(cloud, request_id) == ("cancelled", "canceled-before-fulfillment")
    for _ in range(2):  # which takes longer than a relaunch would
        cloud.end(cloud.running())
    assert instances_of(cloud, request_id) == [name]


def test_a_reclaim_gives_notice_stops_and_starts_again(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT))
    request_id, before = one_of(cloud, name)["SpotInstanceRequestId"], cloud.address(name)
    cloud.ssh(name, "echo kept > kept")
    tell(cloud, "spot.json", reclaimed=[name], notice_s=1)
    until_at(cloud, request_id, "active", "marked-for-stop")
    assert cloud.state_of(name) == "running"
    until_at(cloud, request_id, "disabled", "instance-stopped-no-capacity")
    assert cloud.state_of(name) == "stopped"
    assert cloud.describe(name)["StateReason"]["Code"] == "Server.SpotInstanceShutdown"
    refused("IncorrectSpotRequestState", cloud.ec2.start_instances, InstanceIds=[name])
    tell(cloud, "spot.json", reclaimed=[])
    until_at(cloud, request_id, "active", "fulfilled")
    assert cloud.address(name) != before
    assert cloud.ssh(name, "cat kept") == "kept\n"
    finish(cloud, name, request_id)


def test_a_cancel_of_a_reclaimed_one_ends_it(cloud: Cloud) -> None:
    name = cloud.running(**spot(**PERSISTENT))
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    tell(cloud, "spot.json", reclaimed=[name], notice_s=0)
    until_at(cloud, request_id, "disabled", "instance-stopped-no-capacity")
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    cloud.until(name, "terminated")


def test_a_reclaim_of_a_one_time_request_ends_it_after_the_notice(cloud: Cloud) -> None:
    name = cloud.running(**spot())
    request_id = one_of(cloud, name)["SpotInstanceRequestId"]
    tell(cloud, "spot.json", reclaimed=[name], notice_s=1)
    until_at(cloud, request_id, "closed", "instance-terminated-no-capacity")
    assert cloud.state_of(name) == "running"
    cloud.until(name, "terminated")
    assert cloud.describe(name)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


@pytest.mark.parametrize(
    ("options", "more", "code"),
    [
        (PERSISTENT, {"InstanceInitiatedShutdownBehavior": "terminate"}, "InvalidParameterCombination"),
        ({"SpotInstanceType": "persistent"}, {}, "InvalidParameterCombination"),
        ({"InstanceInterruptionBehavior": "stop"}, {}, "InvalidParameterCombination"),
        ({"ValidUntil": "2030-01-01T00:00:00Z"}, {}, "InvalidParameterCombination"),
        ({"MaxPrice": "0.05"}, {}, "SpotMaxPriceTooLow"),
        ({"MaxPrice": "0.0001"}, {}, "InvalidParameterValue"),
        (PERSISTENT, {"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_is_refused_makes_no_request(
    cloud: Cloud, options: dict[str, Any], more: dict[str, Any], code: str
) -> None:
    before = cloud.ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    refused(code, cloud.ec2.run_instances, **cloud.request(**spot(**options), **more))
    assert cloud.ec2.describe_spot_instance_requests()["SpotInstanceRequests"] == before


def test_a_high_enough_price_is_taken_and_kept(cloud: Cloud) -> None:
    name = cloud.running(**spot(MaxPrice="0.5"))
    assert one_of(cloud, name)["SpotPrice"] == "0.5"
    cloud.end(name)


def test_a_refused_launch_may_leave_its_request_open(cloud: Cloud) -> None:
    zones = {f"us-east-1{letter}": 0 for letter in "abcdf"}
    tell(cloud, "account.json", capacity={"g5.xlarge": zones}, open_requests=True)
    request = cloud.request(**spot(**PERSISTENT), InstanceType="g5.xlarge")
    refused("InsufficientInstanceCapacity", cloud.ec2.run_instances, **request)
    (left,) = found(cloud, "status-code", "capacity-not-available")
    assert look(cloud, left)["State"] == "open"
    assert look(cloud, left)["Tags"] == TAGS
    tell(cloud, "account.json")
    until_at(cloud, left, "active", "fulfilled")
    name = look(cloud, left)["InstanceId"]
    cloud.until(name, "running")
    finish(cloud, name, left)


def test_the_price_history_has_each_zone_and_system(cloud: Cloud) -> None:
    def ask(**changes: Any) -> list[dict[str, Any]]:
        given = {"InstanceTypes": ["g4dn.xlarge"], "StartTime": "2999-01-01T00:00:00Z", **changes}
        rows: list[dict[str, Any]] = cloud.ec2.describe_spot_price_history(**given)["SpotPriceHistory"]
        return rows

    rows = ask(ProductDescriptions=["Linux/UNIX"])
    assert len({row["AvailabilityZone"] for row in rows}) == len(rows) == 5
    assert {row["ProductDescription"] for row in rows} == {"Linux/UNIX"}
    assert all(0.25 < float(row["SpotPrice"]) / 0.526 < 0.42 for row in rows)
    windows = ask(ProductDescriptions=["Windows"])
    assert min(float(row["SpotPrice"]) for row in windows) > max(float(row["SpotPrice"]) for row in rows)
    assert ask(ProductDescriptions=["None such"]) == []
    assert len(ask(ProductDescriptions=["Linux/UNIX"], AvailabilityZone="us-east-1b")) == 1
    assert len(ask(ProductDescriptions=["Linux/UNIX"], StartTime="2020-01-01T00:00:00Z")) == 15
    assert ask(InstanceTypes=["t3.micro"]) == []
