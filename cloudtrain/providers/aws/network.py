"""The network a machine would start in, checked before anything is made.

A subnet or a security group of the user's own that does not exist, or does not fit
the other, is found here and not by a refused launch. Where the questions are denied
the launch itself will tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as boto

from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import code_of

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Network:
    """Where a machine will be: `zone` is set by a subnet of the user's own."""

    zone: str | None = None
    notes: tuple[str, ...] = ()
    inside: str | None = None
    """The subnet, as a CIDR, in which the machine gets no public address."""


def check(clients: Clients, config: Config, port: int) -> Network:
    """Check the configured subnet and security group, or that there is a default VPC.

    Raises `UsageError` for what cannot work, and botocore's errors where it may not
    be asked.
    """
    subnet = _subnet(clients, config.instance.subnet)
    vpc = str(subnet["VpcId"]) if subnet else _default_vpc(clients)
    notes: list[str] = []
    inside = _inside(config, subnet)
    if config.instance.security_group:
        notes += _check_group(clients, config.instance.security_group, vpc, port)
    return Network(str(subnet["AvailabilityZone"]) if subnet else None, tuple(notes), inside)


def _inside(config: Config, subnet: Row | None) -> str | None:
    """Return the subnet in which the machine has a private address only, or None.

    Raises `UsageError` when nobody could get in: the caller's public address is not the
    one that it would be seen to come from there.
    """
    wanted = config.instance.address
    if wanted == "public" or (wanted == "auto" and (subnet is None or subnet.get("MapPublicIpOnLaunch"))):
        return None
    if subnet is None:
        raise UsageError(
            "`instance.address: private` needs `instance.subnet`",
            hint="name the subnet that you, or a ProxyJump of yours, can reach",
        )
    if not (config.access.ingress or config.instance.security_group):
        raise UsageError(
            f"the machine would have a private address in {subnet['SubnetId']}, where nobody knows your public one",
            hint="set `access.ingress` to the address you come from inside (a hop's, say), or name a group "
            "of yours in `instance.security_group`",
        )
    return str(subnet["CidrBlock"])


def _subnet(clients: Clients, name: str | None) -> Row | None:
    if name is None:
        return None
    try:
        found = clients.advice.describe_subnets(SubnetIds=[name])["Subnets"]
    except boto.ClientError as error:
        if not code_of(error).startswith("InvalidSubnetI"):
            raise
        found = []
    if not found:
        raise UsageError(
            f"subnet `{name}` does not exist in {clients.region}",
            hint="correct `instance.subnet`, or leave it out for the default VPC",
        )
    return dict(found[0])


def _default_vpc(clients: Clients) -> str:
    filters: Any = [{"Name": "is-default", "Values": ["true"]}]
    found = clients.advice.describe_vpcs(Filters=filters)["Vpcs"]
    if not found:
        raise UsageError(
            f"there is no default VPC in {clients.region}",
            hint="set `instance.subnet` to a subnet of yours, or make one: `aws ec2 create-default-vpc`",
        )
    return str(found[0].get("VpcId"))


def _check_group(clients: Clients, name: str, vpc: str, port: int) -> list[str]:
    try:
        found = clients.advice.describe_security_groups(GroupIds=[name])["SecurityGroups"]
    except boto.ClientError as error:
        if not code_of(error).startswith("InvalidGroup"):
            raise
        found = []
    if not found:
        raise UsageError(
            f"security group `{name}` does not exist in {clients.region}",
            hint="correct `instance.security_group` (sg-…), or leave it out and one is made",
        )
    if str(found[0].get("VpcId")) != vpc:
        raise UsageError(
            f"security group `{name}` is in {found[0].get('VpcId')}, and the machine would start in {vpc}",
            hint="set `instance.subnet` to a subnet of the group's VPC, or name another group",
        )
    if any(_admits(dict(row), port) for row in found[0].get("IpPermissions", [])):
        return []
    return [f"{name} admits nobody to port {port}: cloudtrain does not change a group of yours"]


def _admits(rule: Row, port: int) -> bool:
    if rule.get("IpProtocol") == "-1":
        return True
    return rule.get("IpProtocol") == "tcp" and int(rule.get("FromPort", 0)) <= port <= int(
        rule.get("ToPort", 0)
    )
