"""The least policy: for each verb the calls it makes, why, and under which condition.

One table; the printed document, its explanation and the test that compares it with
the calls really made are all read from it. What AWS lets be tied to our tag is: a
thing may be made only with the tag and changed only where it carries it. Describe
calls know no such condition (EC2's page of actions, resources and condition keys).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cloudtrain.errors import UsageError
from cloudtrain.models.account import Policy
from cloudtrain.models.tags import OWNER

Scope = Literal["look", "make", "tag", "change", "image", "quota", "role"]
ALL = "up run down status train stop start extend adopt bake images images-prune audit audit-delete offers quota doctor"
VERBS = tuple(ALL.split())
"""What a policy can be printed for; `audit-delete` is `audit --delete`, `images-prune` is `images --prune`."""


@dataclass(frozen=True, slots=True)
class Right:
    """One action, the verbs that need it (words of one string), and why."""

    action: str
    verbs: str
    why: str
    scope: Scope = "look"


RIGHTS = (
    Right("ec2:DescribeInstances", "up run down status stop start extend adopt audit audit-delete quota doctor bake",
          "to find the run's machine by its tags, and to count what uses a quota"),
    Right("ec2:DescribeVolumes", "up run down status stop start extend adopt audit audit-delete bake",
          "to find volumes of the run"),
    Right("ec2:DescribeKeyPairs", "up run down status stop start extend adopt audit audit-delete bake",
          "to find the run's key pair"),
    Right("ec2:DescribeSecurityGroups", "up run down status stop start extend adopt audit audit-delete bake",
          "to find the run's security group and its rules"),
    Right("ec2:DescribeSpotInstanceRequests", "up run down status stop start extend adopt audit audit-delete bake",
          "to find spot requests: an open one launches a machine"),
    Right("ec2:DescribeImages", "up run audit audit-delete bake images images-prune", "to find your images, and to read an image's root device and smallest volume"),
    Right("ec2:DescribeInstanceTypes", "up run offers quota doctor bake", "to know GPUs, memory and vCPUs of a type"),
    Right("ec2:DescribeInstanceTypeOfferings", "up run offers bake", "to know the zones that have a type"),
    Right("ec2:DescribeSpotPriceHistory", "up run offers audit audit-delete", "to show spot prices"),
    Right("ec2:DescribeVpcs", "up run doctor bake", "to see that there is a default VPC"),
    Right("ec2:DescribeSubnets", "up run doctor bake", "to check `instance.subnet`"),
    Right("ec2:DescribeRegions", "audit audit-delete doctor", "to look for leftovers in every enabled region"),
    Right("ec2:DescribeNetworkInterfaces", "audit audit-delete", "to find interfaces that were left over"),
    Right("ec2:DescribeAddresses", "audit audit-delete", "to find addresses that were left over"),
    Right("ec2:DescribeSnapshots", "audit audit-delete bake images images-prune", "to find snapshots: of your images, and those left over"),
    Right("pricing:GetProducts", "up run offers audit audit-delete bake", "to show on-demand prices"),
    Right("servicequotas:GetServiceQuota", "quota doctor", "to see the vCPU quota"),
    Right("servicequotas:GetAWSDefaultServiceQuota", "quota doctor", "to see its default"),
    Right("servicequotas:ListRequestedServiceQuotaChangeHistoryByQuota", "quota doctor",
          "to see whether more was asked for already"),
    Right("servicequotas:RequestServiceQuotaIncrease", "quota", "to ask for more", "quota"),
    Right("ssm:GetParameter", "up run bake", "to find the newest Ubuntu image", "image"),
    Right("ec2:RunInstances", "up run bake", "to launch the machine", "make"),
    Right("ec2:ImportKeyPair", "up run bake", "to log in with a key that was made on your computer", "make"),
    Right("ec2:CreateSecurityGroup", "up run doctor bake",
          "to admit your address and nobody else; `doctor` asks by a dry run", "make"),
    Right("ec2:CreateTags", "up run bake", "to tag a thing in the very call that makes it", "tag"),
    Right("ec2:CreateTags", "up run start extend adopt bake", "to keep the end of the lease and the public half of the machine's host key as its tags", "change"),
    Right("ec2-instance-connect:SendSSHPublicKey", "adopt", "to get in from a second computer, once", "change"),
    Right("ec2:AuthorizeSecurityGroupIngress", "up run status train stop start adopt bake",
          "to admit your address, also after it changed", "change"),
    Right("ec2:RevokeSecurityGroupIngress", "up run status train stop start adopt bake",
          "to withdraw your old address", "change"),
    Right("ec2:StartInstances", "up run down start bake", "to start a stopped machine", "change"),
    Right("ec2:StopInstances", "up run stop bake", "to park a machine", "change"),
    Right("ec2:TerminateInstances", "up run down audit-delete bake", "to end the machine", "change"),
    Right("ec2:CancelSpotInstanceRequests", "up run down audit-delete bake",
          "to keep AWS from launching a machine anew", "change"),
    Right("ec2:DeleteKeyPair", "run down audit-delete bake", "to leave nothing behind", "change"),
    Right("ec2:DeleteSecurityGroup", "run down audit-delete bake", "to leave nothing behind", "change"),
    Right("ec2:DeleteVolume", "audit-delete", "to delete a volume that was left over", "change"),
    Right("ec2:DeleteSnapshot", "audit-delete images-prune", "to delete a snapshot that was left over", "change"),
    Right("ec2:DeregisterImage", "audit-delete images-prune", "to delete an image that was left over", "change"),
    Right("ec2:DeleteNetworkInterface", "audit-delete", "to delete an interface that was left over", "change"),
    Right("ec2:ReleaseAddress", "audit-delete", "to release an address that was left over", "change"),
    Right("ec2:CreateImage", "bake", "to make an image that carries our tag", "make"),
    Right("ec2:CreateImage", "bake", "to make it of a machine that carries our tag", "change"),
    Right("iam:CreateServiceLinkedRole", "up run", "AWS makes its role for spot at an account's first spot use",
          "role"),
)  # fmt: skip
"""Every action there is."""

IMPLIED = {
    "ec2:CreateTags": "EC2 asks for it when a creating call carries tags; it is no call of its own",
    "iam:CreateServiceLinkedRole": "EC2 does it in the caller's name at the first spot launch of an account",
}
"""Actions of the policy that no call of ours has the name of."""
FREE = {"sts:GetCallerIdentity": "AWS answers it to everybody; no policy can deny it"}
"""Calls of ours that need no right."""

# fmt: off
_NEW = ("instance", "volume", "network-interface", "spot-instances-request", "key-pair", "security-group",
        "image", "snapshot")
# fmt: on
_USED = ("subnet", "key-pair", "security-group")
_MAKING = ["RunInstances", "CreateSecurityGroup", "ImportKeyPair", "CreateImage"]


READ_DATASET = {
    "s3:GetObject": "to lend the machine your right to read the dataset, for the transfer only",
    "s3:ListBucket": "to find the objects of a folder",
}
"""What `dataset.source: s3://…` needs beside the verbs."""


def policy(verbs: Iterable[str], partition: str, dataset: str = "") -> Policy:
    """Return the least policy for some verbs, and for reading a dataset at `s3://bucket/path`.

    Raises `UsageError` for a verb that does not exist, and for an address that is none of S3's.
    """
    wanted = tuple(dict.fromkeys(verbs)) or VERBS
    unknown = [verb for verb in wanted if verb not in VERBS]
    if unknown:
        raise UsageError(f"there is no verb `{unknown[0]}`", hint=f"verbs with rights: {', '.join(VERBS)}")
    rights = [right for right in RIGHTS if set(right.verbs.split()) & set(wanted)]
    statements = [one for one in _statements(rights, partition) if one["Action"]]
    return Policy(
        wanted,
        partition,
        {"Version": "2012-10-17", "Statement": [*statements, *_reading(dataset, partition)]},
        {right.action: right.why for right in rights} | (READ_DATASET if dataset else {}),
    )


def _reading(dataset: str, partition: str) -> list[dict[str, object]]:
    """Allow reading one object, or what lies below a folder, and nothing else of its bucket."""
    if not dataset:
        return []
    bucket, _, key = dataset.removeprefix("s3://").partition("/")
    if not (dataset.startswith("s3://") and bucket):
        raise UsageError(f"`{dataset}` is no address in S3", hint="write s3://bucket/path")
    arn = f"arn:{partition}:s3:::{bucket}"
    objects = f"{arn}/{key}{'*' if key.endswith('/') or not key else ''}"
    below = _allow("ListDataset", ["s3:ListBucket"], arn, StringLike={"s3:prefix": f"{key}*"})
    return [_allow("ReadDataset", ["s3:GetObject"], objects), below]


def _statements(rights: list[Right], partition: str) -> list[dict[str, object]]:
    def of(*scopes: Scope) -> list[str]:
        return sorted(right.action for right in rights if right.scope in scopes)

    ec2 = f"arn:{partition}:ec2:*:*"
    parameters = f"arn:{partition}:ssm:*::parameter/aws/service"
    launch = [action for action in of("make") if action == "ec2:RunInstances"]
    group = [action for action in of("make") if action == "ec2:CreateSecurityGroup"]
    return [
        _allow("Look", of("look"), "*"),
        _allow("FindImages", of("image"), [f"{parameters}/canonical/*", f"{parameters}/deeplearning/*"]),
        _allow(
            "MakeOnlyWithOurTag",
            of("make"),
            [f"{ec2}:{kind}/*" for kind in _NEW],
            StringLike={f"aws:RequestTag/{OWNER}": "?*"},
        ),
        _allow(
            "LaunchFromWhatIsThere",
            launch,
            [f"arn:{partition}:ec2:*::image/*", *(f"{ec2}:{kind}/*" for kind in _USED)],
        ),
        _allow("MakeGroupsInAnyVpc", group, f"{ec2}:vpc/*"),
        _allow("TagOnlyWhileMaking", of("tag"), f"{ec2}:*/*", StringEquals={"ec2:CreateAction": _MAKING}),
        _allow(
            "ChangeOnlyWhatHasOurTag",
            of("change"),
            f"{ec2}:*/*",
            StringLike={f"aws:ResourceTag/{OWNER}": "?*"},
        ),
        _allow("AskForQuota", of("quota"), f"arn:{partition}:servicequotas:*:*:ec2/*"),
        _allow(
            "FirstSpotUse",
            of("role"),
            f"arn:{partition}:iam::*:role/aws-service-role/spot.amazonaws.com/*",
            StringEquals={"iam:AWSServiceName": "spot.amazonaws.com"},
        ),
    ]


def _allow(
    name: str, actions: list[str], resource: str | list[str], **condition: object
) -> dict[str, object]:
    said: dict[str, object] = {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resource}
    return {**said, "Condition": condition} if condition else said
