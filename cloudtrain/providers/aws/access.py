"""Key pair, security group and the caller's address: the way in, and its end."""

from __future__ import annotations

import http.client
import ipaddress
import re
import secrets
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import botocore.exceptions as boto

from cloudtrain.errors import CloudError, UsageError
from cloudtrain.models.address import is_inside
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import run_tags
from cloudtrain.paths import data_dir
from cloudtrain.providers.aws import tags
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import NO_ANSWER, code_of, translate, translating
from cloudtrain.providers.base import Access, AccessSpec

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


LOOPBACK = "127.0.0.1"
ANSWER_LIMIT = 64
"""Letters of an honest answer, with room: one IPv4 address has 15 and a line end."""


class _NoDetours(urllib.request.HTTPRedirectHandler):
    """Follows nothing: another page's answer is not the one that was chosen."""

    def redirect_request(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - urllib's
        """Refuse, which makes the redirect an error."""


def caller_address(service: str, *, timeout_s: float = 4) -> str:
    """Ask a web page for the caller's public IPv4 address.

    Raises `CloudError` when the answer is anything but one public IPv4 address and
    nothing else: it becomes a firewall rule, so a wrong answer must never be used.
    """
    if not service.startswith(("https://", f"http://{LOOPBACK}:")):
        raise UsageError(f"`access.address_service` must be an https address, not `{service}`")
    try:
        with urllib.request.build_opener(_NoDetours).open(service, timeout=timeout_s) as answer:
            raw: bytes = answer.read(ANSWER_LIMIT + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CloudError(
            f"`{service}` did not say which address you come from: {error}",
            hint="give it yourself: `access: {ingress: 203.0.113.7}`",
        ) from error
    if len(raw) > ANSWER_LIMIT:
        raise CloudError(
            f"`{service}` answers with a page instead of an address",
            hint="set `access.address_service` to one that answers with the address alone",
        )
    return checked_address(raw.decode("ascii", "replace").strip())


def checked_address(text: str, *, loopback: bool = False, inside: bool = False) -> str:
    """Return `text` if it is one public IPv4 address.

    `loopback` takes this computer's own too, `inside` a private network's.

    Raises `CloudError`.
    """
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise CloudError(
            f"{text[:40]!r} is not one IPv4 address",
            hint="set `access.ingress` to your public IPv4 address",
        ) from error
    public = address.is_global and not (address.is_multicast or address.is_reserved)
    if not (public or (loopback and address.is_loopback) or (inside and is_inside(text))):
        raise CloudError(
            f"{address} is not a public address: the machine would not see you come from it",
            hint="set `access.ingress` to your public IPv4 address",
        )
    return str(address)


def client_id() -> str:
    """Return this computer's own id, 8 random hex digits made once: it tells its rule from others."""
    path = data_dir() / "client-id"
    with suppress(OSError):
        known = path.read_text().strip()
        if re.fullmatch("[0-9a-f]{8}", known):
            return known
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = path.with_name(f"client-id.{secrets.token_hex(4)}")
    made.write_text(secrets.token_hex(4))
    made.chmod(0o600)
    with suppress(FileExistsError):
        path.hardlink_to(made)  # of two commands at once, one makes it
    made.unlink()
    return path.read_text().strip()


def prepare(clients: Clients, spec: AccessSpec) -> Access:
    """Make or find key pair and security group and admit the caller. Idempotent."""
    created: list[str] = []
    if spec.ingress:
        checked_address(spec.ingress, loopback=True, inside=spec.subnet is not None)
    name = f"cloudtrain-{spec.run.slug}"
    if _import_key(clients.ec2, name, spec):
        created.append(f"key pair {name}")
    if spec.security_group:
        return Access(name, spec.security_group, tuple(created))
    group, new = _group(clients.ec2, name, spec)
    if new:
        created.append(f"security group {group}")
    if spec.ingress and _admit(clients.ec2, group, spec.run, spec.ingress, spec.port, new=new):
        created.append(f"rule for {spec.ingress}/32")
    return Access(name, group, tuple(created))


def repair(clients: Clients, run: RunRef, address: str, port: int) -> bool:
    """Let the run's group admit this computer at `address` and no longer at an older one.

    Only a rule that this very computer made is revoked; other clients' rules stay.
    Returns whether anything changed; a group of the user's own is left alone.
    """
    name = checked_address(address, loopback=True)
    with translating("looking up the security group"):
        groups = clients.ec2.describe_security_groups(Filters=_filters(run))["SecurityGroups"]
    changed = [_admit(clients.ec2, str(g.get("GroupId")), run, name, port) for g in groups]
    return any(changed)


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
    except NO_ANSWER as error:
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


def _admit(ec2: EC2Client, group: str, run: RunRef, address: str, port: int, *, new: bool = False) -> bool:
    """Have exactly one rule of this computer's in the group: the one for `address`."""
    mine = f"cloudtrain {run.owner} {client_id()}"
    wanted = f"{address}/32"
    if new:  # it has no rules to look at
        with translating("admitting your address"):
            _authorize(ec2, group, _rule(port, wanted, mine))
        return True
    with translating("looking at the security group's rules"):
        found = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        ranges = [
            (row, item)
            for one in found
            for row in one.get("IpPermissions", [])
            for item in row.get("IpRanges", [])
            if row.get("FromPort") == port
        ]
        present = any(item.get("CidrIp") == wanted for _, item in ranges)
        if not present:
            _authorize(ec2, group, _rule(port, wanted, mine))
        # Revoked only after the new one stands: a crash between leaves two, never none.
        stale = [
            str(item.get("CidrIp"))
            for _, item in ranges
            if item.get("Description") == mine and item.get("CidrIp") != wanted
        ]
        for cidr in stale:
            _revoke(ec2, group, _rule(port, cidr, mine))
    return bool(stale) or not present


def _rule(port: int, cidr: str, description: str) -> Any:  # noqa: ANN401 - the stubs want a TypedDict
    ranges = [{"CidrIp": cidr, "Description": description}]
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": ranges}


def _authorize(ec2: EC2Client, group: str, rule: Any) -> None:  # noqa: ANN401
    try:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    except boto.ClientError as error:
        if code_of(error) != "InvalidPermission.Duplicate":
            raise translate(error, "admitting your address") from error


def _revoke(ec2: EC2Client, group: str, rule: Any) -> None:  # noqa: ANN401
    try:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    except boto.ClientError as error:
        if code_of(error) != "InvalidPermission.NotFound":
            raise translate(error, "withdrawing your old address") from error


def _tagged(kind: str, spec: AccessSpec) -> Any:  # noqa: ANN401 - the stubs want a literal
    return [{"ResourceType": kind, "Tags": tags.to_aws(run_tags(spec.run))}]
