"""Removing things one by one, in the order in which nothing comes back and nothing is in use.

Spot requests go first, because an open one launches a machine anew; then machines,
which are waited for; then what only held or served them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as boto

from cloudtrain.models.plan import Found, FoundKind
from cloudtrain.providers.aws import machines
from cloudtrain.providers.aws.audit import regions_of
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import NO_ANSWER, code_of, translate, translating

GONE_S = 300.0
RELEASE_S = 120.0
"""How long something may still be in use after the machine that used it has ended."""
_IN_USE = {"DependencyViolation", "VolumeInUse", "InvalidNetworkInterface.InUse", "InvalidParameterValue"}


@dataclass(frozen=True, slots=True)
class _Call:
    operation: str
    argument: str
    missing: str


_CALLS: dict[FoundKind, _Call] = {
    "image": _Call("deregister_image", "ImageId", "InvalidAMIID"),
    "snapshot": _Call("delete_snapshot", "SnapshotId", "InvalidSnapshot"),
    "interface": _Call("delete_network_interface", "NetworkInterfaceId", "InvalidNetworkInterfaceID"),
    "address": _Call("release_address", "AllocationId", "InvalidAllocationID"),
    "volume": _Call("delete_volume", "VolumeId", "InvalidVolume"),
    "security-group": _Call("delete_security_group", "GroupId", "InvalidGroup"),
    "key-pair": _Call("delete_key_pair", "KeyName", "InvalidKeyPair"),
}
"""In the order of deletion: an image holds its snapshots, an interface its group."""


def remove(
    clients: Clients,
    things: tuple[Found, ...],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Remove things of any kind and region; gone already is success.

    Raises `CloudError` naming the first that cannot be removed; what came before it
    in order is gone then, and asking again goes on from there.
    """
    for region in regions_of(things):
        place = clients.at(region)
        here = [one for one in things if one.region == region]
        _cancel(place, [one.id for one in here if one.kind == "spot-request"])
        # A request parks its machine: cancelled, EC2 ends the machine, and we wait for that.
        ids = {one.id for one in here if one.kind == "instance"}
        if ids:
            machines.terminate(place, tuple(sorted(ids)), GONE_S, clock=clock, sleep=sleep)
        for kind, call in _CALLS.items():
            for one in (other for other in here if other.kind == kind):
                _remove(place, one, call, clock, sleep)


def _cancel(clients: Clients, requests: list[str]) -> None:
    if requests:
        with translating("cancelling spot requests"):
            clients.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=requests)


def _remove(
    clients: Clients, one: Found, call: _Call, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    operation: Any = getattr(clients.ec2, call.operation)
    end = clock() + RELEASE_S
    pause = 0.2
    while True:
        try:
            operation(**{call.argument: one.id})
        except boto.ClientError as error:
            if code_of(error).startswith(call.missing) and "InUse" not in code_of(error):
                return
            if code_of(error) not in _IN_USE or clock() + pause > end:
                raise translate(error, f"deleting {one.kind} {one.id}") from error
            sleep(pause)
            pause = min(pause * 1.5, 5.0)
        except NO_ANSWER as error:
            raise translate(error, f"deleting {one.kind} {one.id}") from error
        else:
            return
