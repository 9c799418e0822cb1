"""Key pair, security group and the caller's address: the way in, and its end."""

from __future__ import annotations

import ipaddress
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import botocore.exceptions as boto

from cloudtrain.errors import CloudError, UsageError
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import run_tags
from cloudtrain.providers.aws import tags
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import code_of, translate, translating
from cloudtrain.providers.base import Access, AccessSpec

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def caller_address(service: str, *, timeout_s: float = 4) -> str:
    """Ask a web page for the caller's public IPv4 address.

    Raises `CloudError` when the answer is anything but one public IPv4 address:
    it becomes a firewall rule, so a wrong answer must never be used.
    """
    if not service.startswith(("https://", "http://127.0.0.1:")):
        raise UsageError(f"`access.address_service` must be an https address, not `{service}`")
    try:
        with urllib.request.urlopen(service, timeout=timeout_s) as answer:  # noqa: S310 - checked above
            text = answer.read(64).decode("ascii", "replace").strip()
    except (urllib.error.URLError, OSError) as error:
        raise CloudError(
            f"`{service}` did not say which address you come from: {error}",
            hint="give it yourself: `access: {ingress: 203.0.113.7}`",
        ) from error
    return checked_address(text)


def checked_address(text: str) -> str:
    """Return `text` if it is one public (or loopback) IPv4 address. Raises `CloudError`."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise CloudError(
            f"`{text[:40]}` is not an IPv4 address", hint="set `access.ingress` yourself"
        ) from error
    if not (address.is_global or address.is_loopback):
        raise CloudError(
            f"{address} is not a public address: the machine would not see you come from it",
            hint="set `access.ingress` to your public IPv4 address",
        )
    return str(address)


def prepare(clients: Clients, spec: AccessSpec) -> Access:
    """Make or find key pair and security group and admit the caller. Idempotent."""
    created: list[str] = []
    name = f"cloudtrain-{spec.run.slug}"
    if _import_key(clients.ec2, name, spec):
        created.append(f"key pair {name}")
    if spec.security_group:
        return Access(name, spec.security_group, tuple(created))
    group, new = _group(clients.ec2, name, spec)
    if new:
        created.append(f"security group {group}")
    if spec.ingress and _admit(clients.ec2, group, spec):
        created.append(f"rule for {spec.ingress}/32")
    return Access(name, group, tuple(created))


def release(
    clients: Clients,
    run: RunRef,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Delete key pair and security group of a run; gone already is success.

    A group stays in use for a while after its machine ended (DependencyViolation),
    so that one refusal is asked again for up to two minutes.
    """
    ec2 = clients.ec2
    with translating("deleting the key pair"):
        for pair in ec2.describe_key_pairs(Filters=_filters(run))["KeyPairs"]:
            ec2.delete_key_pair(KeyName=pair.get("KeyName", ""))
    with translating("looking up the security group"):
        groups = ec2.describe_security_groups(Filters=_filters(run))["SecurityGroups"]
    end = clock() + 120
    for group in groups:
        pause = 0.1
        while not _delete_group(ec2, group.get("GroupId", ""), last=clock() > end):
            sleep(pause)
            pause = min(pause * 1.5, 5.0)


def _filters(run: RunRef) -> Any:  # noqa: ANN401 - the stubs want a TypedDict a call
    return tags.mine(run)


def _delete_group(ec2: EC2Client, group: str, *, last: bool) -> bool:
    try:
        ec2.delete_security_group(GroupId=group)
    except boto.ClientError as error:
        if code_of(error) == "InvalidGroup.NotFound":
            return True
        if code_of(error) == "DependencyViolation" and not last:
            return False
        raise translate(error, f"deleting security group {group}") from error
    return True


def _import_key(ec2: EC2Client, name: str, spec: AccessSpec) -> bool:
    try:
        ec2.import_key_pair(
            KeyName=name,
            PublicKeyMaterial=spec.public_key.encode(),
            TagSpecifications=_tagged("key-pair", spec),
        )
    except boto.ClientError as error:
        if code_of(error) != "InvalidKeyPair.Duplicate":
            raise translate(error, "importing the key pair") from error
        return False
    except boto.BotoCoreError as error:
        raise translate(error, "importing the key pair") from error
    return True


def _group(ec2: EC2Client, name: str, spec: AccessSpec) -> tuple[str, bool]:
    """Create the group first and look it up only if it was there: one call, not two."""
    request: dict[str, Any] = {
        "GroupName": name,
        "Description": f"cloudtrain run {spec.run.name}: SSH for its owner only",
        "TagSpecifications": _tagged("security-group", spec),
    }
    with translating("creating the security group"):
        if spec.subnet:
            subnets = ec2.describe_subnets(SubnetIds=[spec.subnet])["Subnets"]
            request["VpcId"] = subnets[0].get("VpcId")
        try:
            return ec2.create_security_group(**request)["GroupId"], True
        except boto.ClientError as error:
            if code_of(error) != "InvalidGroup.Duplicate":
                raise
        groups = ec2.describe_security_groups(Filters=_filters(spec.run))["SecurityGroups"]
    if not groups:
        raise CloudError(
            f"a security group named {name} exists and is not this run's",
            hint="delete it in the EC2 console, or choose another `name:`",
        )
    return groups[0].get("GroupId", ""), False


def repair(clients: Clients, run: RunRef, port: int, address: str) -> bool:
    """Admit `address` and revoke the caller's own earlier rules; nobody else's are touched."""
    with translating("looking for the security group"):
        groups = clients.ec2.describe_security_groups(Filters=_filters(run))["SecurityGroups"]
    changed = False
    for group in groups:
        name = group.get("GroupId", "")
        spec = AccessSpec(run=run, public_key="", ingress=checked_address(address), port=port)
        changed = _admit(clients.ec2, name, spec) or changed
        old: list[Any] = [
            {**permission, "IpRanges": [entry], "UserIdGroupPairs": [], "Ipv6Ranges": [], "PrefixListIds": []}
            for permission in group.get("IpPermissions", [])
            for entry in permission.get("IpRanges", [])
            if entry.get("Description") == f"cloudtrain {run.owner}"
            and entry.get("CidrIp") != f"{address}/32"
        ]
        with translating("revoking your earlier address"):
            for permission in old:
                clients.ec2.revoke_security_group_ingress(GroupId=name, IpPermissions=[permission])
    return changed


def _admit(ec2: EC2Client, group: str, spec: AccessSpec) -> bool:
    permission: Any = {
        "IpProtocol": "tcp",
        "FromPort": spec.port,
        "ToPort": spec.port,
        "IpRanges": [{"CidrIp": f"{spec.ingress}/32", "Description": f"cloudtrain {spec.run.owner}"}],
    }
    try:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    except boto.ClientError as error:
        if code_of(error) != "InvalidPermission.Duplicate":
            raise translate(error, "admitting your address") from error
        return False
    except boto.BotoCoreError as error:
        raise translate(error, "admitting your address") from error
    return True


def _tagged(kind: str, spec: AccessSpec) -> Any:  # noqa: ANN401 - the stubs want a literal
    return [{"ResourceType": kind, "Tags": tags.to_aws(run_tags(spec.run))}]
