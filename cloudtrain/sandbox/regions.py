"""Which regions the account has: a handful, all served by this one endpoint, each with its own resources."""

from __future__ import annotations

from collections.abc import Mapping

from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.wire import Forward, Reply, Request, dry_run, failure, xml

ENABLED = ("eu-central-1", "eu-west-1", "us-east-1", "us-east-2", "us-west-2")
CLOSED = ("ap-east-1", "me-south-1")
"""Regions that an account has to opt in to, and this one has not."""
CHINA = ("cn-north-1", "cn-northwest-1")


def behaviours() -> Mapping[tuple[str, str], Behaviour]:
    """Return what to do for which call."""
    return {("ec2", "DescribeRegions"): describe}


def describe(request: Request, forward: Forward) -> Reply:  # noqa: ARG001 - moto has every region
    """Answer the enabled regions of the partition; all of them when asked for."""
    if request.params.get("DryRun") == "true":
        return dry_run(request)
    china = request.region.startswith("cn-")
    names = [*(CHINA if china else ENABLED)]
    if request.params.get("AllRegions") == "true" and not china:
        names += CLOSED
    wanted = request.numbered("RegionName") or request.filters().get("region-name") or names
    suffix = "amazonaws.com.cn" if china else "amazonaws.com"
    items = "".join(
        f"<item><regionName>{name}</regionName><regionEndpoint>ec2.{name}.{suffix}</regionEndpoint>"
        f"<optInStatus>{'not-opted-in' if name in CLOSED else 'opt-in-not-required'}</optInStatus></item>"
        for name in names
        if name in wanted
    )
    return xml(request.action, f"<regionInfo>{items}</regionInfo>")


def closed(request: Request, forward: Forward) -> Reply:
    """Refuse every EC2 call to a region that is not opted in to, as EC2 does."""
    if request.service == "ec2" and request.region in CLOSED:
        text = "AWS was not able to validate the provided access credentials"
        return failure(request, "AuthFailure", text, 401)
    return forward(request)
