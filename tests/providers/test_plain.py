"""Plain `moto_server`, without the sandbox's layer, and endpoints that know or permit little."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.errors import AuthorizationError, CloudError, UsageError
from cloudtrain.models.account import OfferQuery
from cloudtrain.models.config import Config, Instance
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import run_tags
from cloudtrain.providers.aws.client import Settings
from cloudtrain.providers.aws.provider import AwsProvider
from cloudtrain.providers.base import AccessSpec
from tests.providers.test_launch import KEY, SPEC, Stored
from tests.support.endpoint import Endpoint, Refusal, served

RUN = RunRef("helmets", "0123abcd", "0123456789ab")
ADVICE = (
    "GetProducts",
    "DescribeSpotPriceHistory",
    "DescribeInstanceTypeOfferings",
    "DescribeInstanceTypes",
    "GetServiceQuota",
    "GetAWSDefaultServiceQuota",
    "ListRequestedServiceQuotaChangeHistoryByQuota",
    "GetConsoleOutput",
    "GetParameter",
    "DescribeVpcs",
    "DescribeRegions",
)


@pytest.fixture(scope="module")
def moto_server() -> Generator[str]:
    """The server as its own command starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _until_open(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _until_open(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("moto_server did not start")


@pytest.fixture
def cloud() -> Generator[Endpoint]:
    with served() as endpoint:
        yield endpoint


def wanted(image: str, **changes: Any) -> Config:
    return Config(instance=Instance(image=image, **changes))


def whole_way(provider: AwsProvider, image: str, market: Any = "on-demand") -> None:
    """Survey, prepare, launch, stop, start, terminate, release: and nothing is left."""
    survey = provider.survey(wanted(image, market=market))
    assert survey.image.id == image
    access = provider.prepare_access(AccessSpec(RUN, KEY, survey.ingress, 22))
    spec = replace(
        SPEC,
        image=survey.image,
        market=market,
        zone=None,
        key_name=access.key_name,
        security_group=access.security_group,
        tags=run_tags(RUN),
    )
    machine = provider.launch(spec, f"token-{market}", Stored())
    assert provider.wait_running(machine.id, 30).address
    if market == "on-demand":
        provider.stop(machine.id)
        provider.start(machine.id)
    assert [one.id for one in provider.observe(RUN).machines if one.alive] == [machine.id]
    provider.terminate((machine.id,), 30)
    provider.release_access(RUN)
    assert provider.observe(RUN).empty


@pytest.mark.parametrize("market", ["on-demand", "spot"])
def test_the_whole_way_on_plain_moto_server(
    moto_server: str, market: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    provider = AwsProvider(Settings(region="eu-west-1", ingress="52.95.4.1"))
    images = provider.clients.ec2.describe_images(Owners=["099720109477"])["Images"]
    whole_way(provider, str(images[0].get("ImageId")), market)
    assert provider.sweep(provider.identity().owner, ("eu-west-1",)).found == ()


def test_what_moto_lacks_is_named_and_the_rest_is_there(cloud: Endpoint) -> None:
    found = cloud.provider().survey(wanted(cloud.image(), market="spot-then-on-demand"))
    by_market = {offer.market: offer for offer in found.offers}
    assert by_market["on-demand"].price_hour == pytest.approx(0.526)
    assert by_market["on-demand"].price_source == "catalog 2026-08-17"
    assert any(text.startswith("current prices (") for text in found.missing)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal("UnauthorizedOperation", "no", 403),
        Refusal("InternalError", "boom", 500),
        Refusal("NotImplemented", "what?", 501),
        Refusal("InvalidAction", "what?", 400),
    ],
    ids=lambda one: one.code,
)
def test_without_any_advice_up_and_down_still_work(cloud: Endpoint, refusal: Refusal) -> None:
    image = cloud.image()
    cloud.refuse = dict.fromkeys(ADVICE, refusal)
    survey = cloud.provider().survey(wanted(image, market="spot-then-on-demand"))
    said = " | ".join(survey.missing)
    for what in ("instance types", "zones", "current prices", "spot prices", "the network"):
        assert f"{what} (" in said, said
    assert survey.offers[0].gpu_count == 1, "the packaged catalog knows it"
    whole_way(cloud.provider(), image)


def test_offers_without_any_advice_are_the_packaged_ones(cloud: Endpoint) -> None:
    cloud.refuse = dict.fromkeys(ADVICE, Refusal("UnauthorizedOperation", "no", 403))
    found = cloud.provider().offers(OfferQuery(gpu="a10g"))
    assert {offer.gpu_name for offer in found.offers} == {"A10G"}
    assert {offer.price_source for offer in found.offers if offer.market == "on-demand"} == {
        "catalog 2026-08-17"
    }
    assert all(offer.price_hour is None for offer in found.offers if offer.market == "spot")
    said = " | ".join(found.missing)
    for what in ("instance types, so those of the packaged catalog", "zones", "current prices", "spot"):
        assert what in said, said


def test_a_denied_price_list_is_asked_once_and_not_once_a_type(cloud: Endpoint) -> None:
    cloud.refuse = {"GetProducts": Refusal("AccessDeniedException", "no", 400)}
    found = cloud.provider().offers(OfferQuery(markets=("on-demand",)))
    assert len(found.offers) > 30
    asked = [params for params in cloud.asked("GetProducts") if "instanceType" in str(params)]
    assert len(asked) <= 12, "those that were on their way when the first denial came"


def test_a_stalled_answer_does_not_hold_a_survey(monkeypatch: pytest.MonkeyPatch, cloud: Endpoint) -> None:
    image = cloud.image()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        began = time.monotonic()
        found = AwsProvider(Settings(region="us-east-1", ingress="52.95.4.1")).survey(wanted(image))
        assert time.monotonic() - began < 14
    assert any("no answer in time" in text for text in found.missing), found.missing
    assert found.offers[0].price_hour == pytest.approx(0.526)


def test_quotas_that_nobody_tells_are_not_known(cloud: Endpoint) -> None:
    found = cloud.provider().quota("g4dn.xlarge", "on-demand")
    assert found.code == "L-DB2E81BA"
    assert found.enough is None or found.allowed == 0
    assert found.needed == 4


def test_a_request_for_quota_that_is_refused_is_one_clear_error(cloud: Endpoint) -> None:
    cloud.refuse["RequestServiceQuotaIncrease"] = Refusal("AccessDeniedException", "no", 400)
    with pytest.raises(AuthorizationError, match="8 vCPUs") as caught:
        cloud.provider().request_quota("g4dn.xlarge", "spot", 8)
    assert "iam-policy" in caught.value.hint


def test_own_network_is_checked_before_anything_is_made(cloud: Endpoint) -> None:
    image = cloud.image()
    ec2 = cloud.provider().clients.ec2
    vpc = str(ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"].get("VpcId"))
    subnet = str(
        ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone="us-east-1b")["Subnet"].get(
            "SubnetId"
        )
    )
    default = str(ec2.describe_security_groups()["SecurityGroups"][0].get("GroupId"))
    own = ec2.create_security_group(GroupName="own", Description="own", VpcId=vpc)["GroupId"]

    def survey(**changes: Any) -> Any:
        return cloud.provider().survey(wanted(image, **changes))

    with pytest.raises(UsageError, match="`subnet-0123` does not exist"):
        survey(subnet="subnet-0123")
    with pytest.raises(UsageError, match="`sg-0123` does not exist"):
        survey(security_group="sg-0123")
    with pytest.raises(UsageError, match="machine would start in"):
        survey(subnet=subnet, security_group=default)
    found = survey(subnet=subnet, security_group=own)
    assert found.offers[0].zones == ("us-east-1b",)
    assert any("admits nobody" in text for text in found.missing)
    assert found.inside == "10.9.1.0/24"
    with pytest.raises(UsageError, match="nobody knows your public one"):
        survey(subnet=subnet)
    with pytest.raises(UsageError, match=r"needs `instance\.subnet`"):
        survey(address="private")
    assert survey(subnet=subnet, security_group=own, address="public").inside is None


def test_without_a_default_vpc_the_remedy_is_named(cloud: Endpoint) -> None:
    image = cloud.image()
    ec2 = cloud.provider().clients.ec2
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=str(subnet.get("SubnetId")))
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        ec2.delete_vpc(VpcId=str(vpc.get("VpcId")))
    with pytest.raises(UsageError, match="no default VPC") as caught:
        cloud.provider().survey(wanted(image))
    assert "instance.subnet" in caught.value.hint


def test_an_image_that_nobody_names_is_an_error_and_no_crash(cloud: Endpoint) -> None:
    cloud.refuse["DescribeImages"] = Refusal("UnauthorizedOperation", "no", 403)
    with pytest.raises(CloudError, match="image"):
        cloud.provider().survey(Config())
