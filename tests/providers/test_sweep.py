"""Finding everything of ours in every region, and removing exactly what was named."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from cloudtrain.models.plan import Found, LaunchSpec
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import run_tags
from cloudtrain.providers.aws.provider import AwsProvider
from cloudtrain.providers.aws.tags import owner_of
from cloudtrain.providers.base import AccessSpec
from tests.providers.test_launch import KEY, SPEC, Stored
from tests.support.endpoint import Endpoint, Refusal, served

REGIONS = ("us-east-1", "eu-west-1")


@pytest.fixture
def cloud() -> Generator[Endpoint]:
    with served() as endpoint:
        yield endpoint


def user(cloud: Endpoint, name: str) -> str:
    """Make a user of the account and return its access key."""
    provider = cloud.provider()
    iam: Any = provider.clients.session.client(
        "iam",
        endpoint_url=cloud.url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    iam.create_user(UserName=name)
    return str(iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"])


def launch(provider: AwsProvider, run: RunRef, **changes: Any) -> str:
    access = provider.prepare_access(AccessSpec(run, KEY, "52.95.4.1", 22))
    images = provider.clients.ec2.describe_images(Owners=["099720109477"])["Images"]
    spec: LaunchSpec = replace(
        SPEC,
        image=replace(SPEC.image, id=str(images[0].get("ImageId"))),
        zone=None,
        key_name=access.key_name,
        security_group=access.security_group,
        tags=run_tags(run),
        **changes,
    )
    machine = provider.launch(spec, f"token-{run.slug}", Stored())
    return provider.wait_running(machine.id, 30).id


def one_of_each(provider: AwsProvider, run: RunRef) -> None:
    """Make everything that can be left over, with a run's tags."""
    ec2: Any = provider.clients.ec2
    tags = [{"Key": key, "Value": value} for key, value in run_tags(run).items()]

    def tagged(kind: str) -> Any:
        return [{"ResourceType": kind, "Tags": tags}]

    zone = f"{provider.settings.region}a"
    volume = ec2.create_volume(Size=100, AvailabilityZone=zone, TagSpecifications=tagged("volume"))
    ec2.create_snapshot(VolumeId=volume["VolumeId"], TagSpecifications=tagged("snapshot"))
    ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    ec2.create_network_interface(SubnetId=subnet, TagSpecifications=tagged("network-interface"))
    machine = launch(provider, run)
    image = ec2.create_image(InstanceId=machine, Name=f"image-{run.slug}")["ImageId"]
    ec2.create_tags(Resources=[image], Tags=tags)


def sweep(provider: AwsProvider, *regions: str) -> tuple[Found, ...]:
    found = provider.sweep(provider.identity().owner, regions or REGIONS)
    assert found.missing == ()
    return found.found


def run_of(provider: AwsProvider, name: str = "helmets", number: str = "0123abcd") -> RunRef:
    return RunRef(name, number, provider.identity().owner)


def test_everything_is_found_in_every_region_with_its_price(cloud: Endpoint) -> None:
    for region in REGIONS:
        provider = cloud.provider(region=region)
        one_of_each(provider, run_of(provider))
    found = sweep(cloud.provider())
    assert {one.region for one in found} == set(REGIONS)
    here = {one.kind: one for one in found if one.region == "us-east-1" and not one.machine}
    assert set(here) == {"volume", "snapshot", "address", "interface", "image", "security-group", "key-pair"}
    assert here["volume"].price_month == pytest.approx(8.0)
    assert here["address"].price_month == pytest.approx(3.65)
    assert here["snapshot"].price_month is None
    assert here["key-pair"].price_month == 0
    machine = next(one for one in found if one.kind == "instance" and one.region == "us-east-1")
    assert machine.price_month == pytest.approx((0.526 + 0.005) * 730)
    assert machine.run == "helmets-0123abcd"
    assert all(one.mine for one in found)


def test_a_stopped_machine_costs_its_disk_only(cloud: Endpoint) -> None:
    provider = cloud.provider()
    provider.stop(launch(provider, run_of(provider)))
    found = {one.kind: one for one in sweep(provider)}
    assert found["instance"].state == "stopped"
    assert found["instance"].price_month == 0
    assert found["volume"].price_month == pytest.approx(40 * 0.08)
    assert found["volume"].machine == found["instance"].id


def test_a_region_that_does_not_tell_is_named_and_hides_no_other(cloud: Endpoint) -> None:
    provider = cloud.provider()
    launch(provider, run_of(provider))
    cloud.refuse["DescribeVolumes"] = Refusal("UnauthorizedOperation", "no", 403)
    found = provider.sweep(provider.identity().owner, REGIONS)
    assert {one.kind for one in found.found} >= {"instance", "key-pair", "security-group"}
    assert sorted(found.missing) == [
        "volumes in eu-west-1 (UnauthorizedOperation)",
        "volumes in us-east-1 (UnauthorizedOperation)",
    ]


def test_a_region_that_tells_nothing_is_one_line(cloud: Endpoint) -> None:
    provider = cloud.provider()
    cloud.refuse["*"] = Refusal("AuthFailure", "no", 401)
    found = provider.sweep("0123456789ab", REGIONS)
    assert sorted(found.missing) == [f"anything in {name} (AuthFailure)" for name in sorted(REGIONS)]


def test_where_the_regions_are_denied_the_own_one_is_looked_at(cloud: Endpoint) -> None:
    provider = cloud.provider()
    launch(provider, run_of(provider))
    cloud.refuse["DescribeRegions"] = Refusal("UnauthorizedOperation", "no", 403)
    found = provider.sweep(provider.identity().owner)
    assert found.regions == ("us-east-1",)
    assert "only us-east-1 was looked at" in found.missing[0]
    assert any(one.kind == "instance" for one in found.found)


def test_everything_found_can_be_removed_and_then_nothing_is_left(cloud: Endpoint) -> None:
    for region in REGIONS:
        provider = cloud.provider(region=region)
        one_of_each(provider, run_of(provider))
    provider = cloud.provider()
    provider.remove(sweep(provider))
    assert [one for one in sweep(provider) if one.kind != "snapshot"] == []
    provider.remove(sweep(provider))  # an image's snapshot carries the tags of its volume
    assert sweep(provider) == ()


def test_requests_and_machines_go_before_what_they_use(cloud: Endpoint) -> None:
    provider = cloud.provider()
    launch(provider, run_of(provider))
    found = sweep(provider)
    cloud.calls.clear()
    provider.remove(found)
    order = [name for _, name, _ in cloud.calls if name.startswith(("Delete", "Terminate", "Cancel"))]
    assert order.index("TerminateInstances") < order.index("DeleteSecurityGroup")
    assert order.index("TerminateInstances") < order.index("DeleteKeyPair")


def test_removing_what_is_gone_is_success(cloud: Endpoint) -> None:
    provider = cloud.provider()
    one_of_each(provider, run_of(provider))
    found = sweep(provider)
    provider.remove(found)
    provider.remove(found)


def test_what_is_still_in_use_is_asked_again(cloud: Endpoint) -> None:
    provider = cloud.provider()
    launch(provider, run_of(provider))
    found = sweep(provider)
    cloud.refuse["DeleteSecurityGroup"] = Refusal("DependencyViolation", "in use", times=2)
    provider.remove(found)
    assert len(cloud.asked("DeleteSecurityGroup")) == 3
    assert sweep(provider) == ()


def test_two_users_with_a_run_of_the_same_name_never_meet(cloud: Endpoint) -> None:
    ann, bob = (cloud.provider(key=user(cloud, name)) for name in ("ann", "bob"))
    assert ann.identity().owner != bob.identity().owner
    anns, bobs = run_of(ann), run_of(bob)  # even of the same id
    bobs_machine = launch(bob, replace(bobs, id="0123abce"))
    anns_machine = launch(ann, anns)

    assert [one.id for one in ann.observe(anns).machines] == [anns_machine]
    assert ann.observe(replace(bobs, id="0123abce", owner=anns.owner)).empty
    assert bob.observe(anns).machines[0].id == anns_machine, "tags can be read by all of an account"

    seen = {one.id: one.mine for one in sweep(ann) if one.kind == "instance"}
    assert seen == {anns_machine: True, bobs_machine: False}

    ann.release_access(replace(anns, owner=anns.owner))
    ann.terminate((anns_machine,), 30)
    left = {one.kind for one in sweep(bob) if one.mine}
    assert left >= {"instance", "key-pair", "security-group", "volume"}


def test_a_session_of_a_role_is_the_same_user_at_every_sign_in() -> None:
    first = "arn:aws:sts::123456789012:assumed-role/train/ann@laptop-1700000000"
    second = "arn:aws:sts::123456789012:assumed-role/train/ann@laptop-1800000000"
    assert owner_of(first) == owner_of(second)
    assert owner_of(first) != owner_of(first.replace("/train/", "/other/"))
