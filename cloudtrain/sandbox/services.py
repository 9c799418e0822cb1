"""The calls outside EC2 that a plan asks: image parameters, identity."""

from __future__ import annotations

from collections.abc import Mapping

from cloudtrain.sandbox import images
from cloudtrain.sandbox.emulator import ACCOUNT
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.wire import Forward, Reply, Request, json_reply

_STS = "https://sts.amazonaws.com/doc/2011-06-15/"


def behaviours() -> Mapping[tuple[str, str], Behaviour]:
    """Return what to do for which call."""
    return {
        ("ssm", "GetParameter"): get_parameter,
        ("sts", "GetCallerIdentity"): identity,
    }


def get_parameter(request: Request, forward: Forward) -> Reply:
    """Answer Canonical's and AWS's public image parameters; others are moto's."""
    name = str(request.json.get("Name", ""))
    image_id = images.PARAMETERS.get(name)
    if image_id is None:
        return forward(request)
    partition = "aws-cn" if request.region.startswith("cn-") else "aws"
    arn = f"arn:{partition}:ssm:{request.region}::parameter{name}"
    parameter = {"Name": name, "Type": "String", "Value": image_id, "Version": 1, "ARN": arn}
    return json_reply({"Parameter": {**parameter, "DataType": "aws:ec2:image"}})


def identity(request: Request, forward: Forward) -> Reply:  # noqa: ARG001 - saves loading a service
    """Say who asks: always the same made-up user."""
    partition = "aws-cn" if request.region.startswith("cn-") else "aws"
    arn = f"arn:{partition}:iam::{ACCOUNT}:user/sandbox"
    inner = f"<Arn>{arn}</Arn><UserId>AIDASANDBOXUSERSANDBOX</UserId><Account>{ACCOUNT}</Account>"
    text = (
        f'<GetCallerIdentityResponse xmlns="{_STS}"><GetCallerIdentityResult>{inner}'
        "</GetCallerIdentityResult><ResponseMetadata><RequestId>sandbox</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>"
    )
    return Reply(200, (("Content-Type", "text/xml"),), text.encode())
