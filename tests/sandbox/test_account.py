"""Prices, quotas, capacity and regions."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Cloud
from tests.sandbox.support import refused

G, G_SPOT = "L-DB2E81BA", "L-3819A6DF"
SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}


@pytest.fixture(autouse=True)
def generous_again(cloud: Cloud) -> Generator[None]:
    yield
    (cloud.state / "account.json").unlink(missing_ok=True)


def tell(cloud: Cloud, **settings: Any) -> None:
    part = cloud.state / "account.json.part"
    part.write_text(json.dumps(settings))
    part.replace(cloud.state / "account.json")


def price(cloud: Cloud, **attributes: str) -> list[float]:
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in attributes.items()]
    rows = cloud.client("pricing").get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
    found: list[float] = []
    for row in map(json.loads, rows):
        for term in row["terms"]["OnDemand"].values():
            found += [float(v) for d in term["priceDimensions"].values() for v in d["pricePerUnit"].values()]
    return found


LINUX = {
    "instanceType": "g6.xlarge",
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


def test_the_price_list_answers_each_filter(cloud: Cloud) -> None:
    assert price(cloud, **LINUX, regionCode="us-east-1") == [0.8048]
    older = {**LINUX, "instanceType": "g4dn.xlarge"}
    assert price(cloud, **older, regionCode="eu-west-1") == [pytest.approx(0.526 * 1.12)]
    less = {key: value for key, value in LINUX.items() if key != "capacitystatus"}
    assert sorted(price(cloud, **less, regionCode="us-east-1")) == [0.0, 0.8048]
    assert price(cloud, **{**LINUX, "instanceType": "x9.none"}, regionCode="us-east-1") == []
    assert price(cloud, **{**LINUX, "tenancy": "Dedicated"}, regionCode="us-east-1") == []


def test_the_price_list_is_paged(cloud: Cloud) -> None:
    pages = list(cloud.client("pricing").get_paginator("get_products").paginate(ServiceCode="AmazonEC2"))
    rows = [row for page in pages for row in page["PriceList"]]
    assert len(pages) > 1
    assert len(set(rows)) == len(rows) > 100


def test_in_china_prices_are_in_yuan(cloud: Cloud) -> None:
    filters = [{"Type": "TERM_MATCH", "Field": "regionCode", "Value": "cn-northwest-1"}]
    rows = cloud.client("pricing").get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
    assert rows
    assert all('"CNY"' in row for row in rows)


def test_quotas_are_generous_until_told_otherwise(cloud: Cloud) -> None:
    quotas = cloud.client("service-quotas")
    assert quotas.get_service_quota(ServiceCode="ec2", QuotaCode=G)["Quota"]["Value"] == 1920
    assert quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=G)["Quota"]["Value"] == 0
    tell(cloud, quotas={G: 4})
    assert quotas.get_service_quota(ServiceCode="ec2", QuotaCode=G)["Quota"]["Value"] == 4
    assert len(quotas.list_service_quotas(ServiceCode="ec2")["Quotas"]) == 7
    refused("NoSuchResourceException", quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-NONE")


def test_a_quota_is_enforced_by_vcpus_of_one_market(cloud: Cloud) -> None:
    tell(cloud, quotas={G: 6, G_SPOT: 0})
    with pytest.raises(ClientError, match="current vCPU limit of 6 allows") as error:
        cloud.ec2.run_instances(**cloud.request(InstanceType="g4dn.2xlarge"))
    assert error.value.response.get("Error", {}).get("Code") == "VcpuLimitExceeded"
    refused("MaxSpotInstanceCountExceeded", cloud.ec2.run_instances, **cloud.request(**SPOT))
    name = cloud.running()
    refused("VcpuLimitExceeded", cloud.ec2.run_instances, **cloud.request())
    elsewhere = cloud.client("ec2", region_name="us-west-2")
    refused("DryRunOperation", elsewhere.run_instances, **cloud.request(DryRun=True))
    cloud.ec2.stop_instances(InstanceIds=[name])
    cloud.until(name, "stopped")
    other = cloud.running()  # a stopped one does not count
    refused("VcpuLimitExceeded", cloud.ec2.start_instances, InstanceIds=[name])
    cloud.end(name, other)


def test_an_increase_is_pending_or_granted(cloud: Cloud) -> None:
    quotas = cloud.client("service-quotas", region_name="eu-west-1")
    ask = {"ServiceCode": "ec2", "QuotaCode": G, "DesiredValue": 8.0}
    tell(cloud, quotas={G: 0})
    assert quotas.request_service_quota_increase(**ask)["RequestedQuota"]["Status"] == "PENDING"
    refused("ResourceAlreadyExistsException", quotas.request_service_quota_increase, **ask)
    refused("NoSuchResourceException", quotas.request_service_quota_increase, **{**ask, "QuotaCode": "L-X"})
    history = quotas.list_requested_service_quota_change_history_by_quota
    rows = history(ServiceCode="ec2", QuotaCode=G)["RequestedQuotas"]
    assert [(row["DesiredValue"], row["Status"]) for row in rows] == [(8.0, "PENDING")]
    assert history(ServiceCode="ec2", QuotaCode=G, Status="DENIED")["RequestedQuotas"] == []
    tell(cloud, quotas={G: 0}, approve=True)
    other = cloud.client("service-quotas", region_name="eu-central-1")
    assert other.request_service_quota_increase(**ask)["RequestedQuota"]["Status"] == "APPROVED"
    assert other.get_service_quota(ServiceCode="ec2", QuotaCode=G)["Quota"]["Value"] == 8
    assert quotas.get_service_quota(ServiceCode="ec2", QuotaCode=G)["Quota"]["Value"] == 0
    refused("IllegalArgumentException", other.request_service_quota_increase, **ask)


def test_no_capacity_names_the_zones_that_have_some(cloud: Cloud) -> None:
    tell(cloud, capacity={"g4dn.xlarge": {"us-east-1a": 0, "us-east-1b": {"spot": 0}}})
    place = {"Placement": {"AvailabilityZone": "us-east-1a"}}
    with pytest.raises(ClientError, match="or choosing us-east-1b, us-east-1c, us-east-1d") as error:
        cloud.ec2.run_instances(**cloud.request(**place))
    answer: Any = error.value.response
    assert answer["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500
    name = cloud.running()
    assert cloud.describe(name)["Placement"]["AvailabilityZone"] == "us-east-1b"
    there = {"Placement": {"AvailabilityZone": "us-east-1b"}}
    refused("InsufficientInstanceCapacity", cloud.ec2.run_instances, **cloud.request(**SPOT, **there))
    cloud.ec2.stop_instances(InstanceIds=[name])
    cloud.until(name, "stopped")
    tell(cloud, capacity={"g4dn.xlarge": {f"us-east-1{letter}": 0 for letter in "abcdf"}})
    refused("InsufficientInstanceCapacity", cloud.ec2.start_instances, InstanceIds=[name])
    refused("InsufficientInstanceCapacity", cloud.ec2.run_instances, **cloud.request())
    assert cloud.state_of(name) == "stopped"
    cloud.end(name)


def test_a_zone_that_does_not_offer_the_type_is_unsupported(cloud: Cloud) -> None:
    place = {"Placement": {"AvailabilityZone": "us-east-1e"}}
    refused("Unsupported", cloud.ec2.run_instances, **cloud.request(**place))
    subnets = cloud.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1e"]}])
    subnet = subnets["Subnets"][0]["SubnetId"]
    refused("Unsupported", cloud.ec2.run_instances, **cloud.request(SubnetId=subnet))


def test_regions_are_apart_and_few_are_enabled(cloud: Cloud) -> None:
    regions = [row["RegionName"] for row in cloud.ec2.describe_regions()["Regions"]]
    assert set(regions) == {"us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1"}
    everywhere = cloud.ec2.describe_regions(AllRegions=True)["Regions"]
    status = {row["RegionName"]: row["OptInStatus"] for row in everywhere}
    assert status["ap-east-1"] == "not-opted-in"
    west = cloud.client("ec2", region_name="us-west-2")
    name = west.run_instances(**cloud.request())["Instances"][0]["InstanceId"]
    seen = [i["InstanceId"] for r in cloud.ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert name not in seen
    refused("InvalidInstanceID.NotFound", cloud.ec2.terminate_instances, InstanceIds=[name])
    refused("InvalidInstanceID.NotFound", cloud.ec2.get_console_output, InstanceId=name)
    west.terminate_instances(InstanceIds=[name])
    closed = cloud.client("ec2", region_name="ap-east-1")
    refused("AuthFailure", closed.describe_instances)
