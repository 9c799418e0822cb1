"""RunInstances, exactly once a token.

The resolved request is stored byte for byte before the call, and a stored one is
sent again unchanged, whatever is asked now: AWS answers a replayed token with the
machine it already made, or says that it existed and is gone. After a lost answer
the very same request is asked again a few times here; if no answer comes at all,
the journal still holds the attempt and the next command replays it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import botocore.exceptions as boto

from cloudtrain.errors import CloudError, GoneError, LostAnswerError
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import LaunchSpec
from cloudtrain.models.tags import ID, OWNER
from cloudtrain.providers.aws import tags
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import (
    FAILURES,
    LOST_ANSWER,
    NO_ANSWER,
    THROTTLED,
    code_of,
    is_lost,
    translate,
)
from cloudtrain.providers.aws.machines import to_machine
from cloudtrain.providers.base import Launches

REPLAYS = 4
"""How often an unanswered launch is asked again before the user is told."""


def request_of(spec: LaunchSpec, token: str) -> dict[str, Any]:
    """Return RunInstances' parameters for one attempt. Pure."""
    request: dict[str, Any] = {
        "ClientToken": token,
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": spec.image.id,
        "InstanceType": spec.type,
        "KeyName": spec.key_name,
        "UserData": spec.user_data,
        "BlockDeviceMappings": [
            {
                "DeviceName": spec.image.root_device,
                "Ebs": {
                    "VolumeSize": spec.volume_gb,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,  # sent, not assumed: the image may say otherwise
                },
            }
        ],
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": 2 if spec.containers else 1,
            "InstanceMetadataTags": "enabled",
        },
        "TagSpecifications": tags.specifications(spec.tags, spot=spec.market == "spot"),
    }
    if spec.zone and not spec.subnet:
        request["Placement"] = {"AvailabilityZone": spec.zone}
    request |= _placed(spec)
    if spec.market == "spot":
        # Persistent with stop: EC2 stops the machine on a reclaim and starts it again
        # by itself. No shutdown behaviour is sent: terminate would make AWS launch a
        # replacement, and whether an explicit stop is accepted for spot is not documented.
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
        }
    else:
        request["InstanceInitiatedShutdownBehavior"] = spec.after_power_off
    return request


def _placed(spec: LaunchSpec) -> dict[str, Any]:
    """Return subnet and group; by an interface of its own where a public address is decided on."""
    subnet = {"SubnetId": spec.subnet} if spec.subnet else {}
    if spec.public_address is None:
        return {**subnet, "SecurityGroupIds": [spec.security_group]}
    interface = {
        "DeviceIndex": 0,
        "AssociatePublicIpAddress": spec.public_address,
        "DeleteOnTermination": True,
        "Groups": [spec.security_group],
        **subnet,
    }
    return {"NetworkInterfaces": [interface]}


def run_once(
    clients: Clients,
    spec: LaunchSpec | None,
    token: str,
    launches: Launches,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Machine:
    """Launch exactly one machine for `token`, or replay what is stored under it."""
    stored = launches.load(token)
    if stored is None:
        if spec is None:
            raise GoneError(f"no launch request is stored for token {token}")
        stored = json.dumps(request_of(spec, token), sort_keys=True).encode()
        launches.store(token, stored)
    request: dict[str, Any] = json.loads(stored)
    for attempt in range(REPLAYS + 1):
        try:
            answer = clients.launcher.run_instances(**request)
        except LOST_ANSWER as error:
            if attempt == REPLAYS:
                raise _unanswered(error) from error
            sleep(0.2 * 2**attempt)
        except boto.ClientError as error:
            _judge(clients, request, error, last=attempt == REPLAYS)
            sleep(0.2 * 2**attempt)
        except NO_ANSWER as error:
            raise translate(error, "launching the machine") from error
        else:
            return to_machine(answer["Instances"][0])
    raise AssertionError("the last attempt returns or raises")


def _unanswered(error: Exception) -> LostAnswerError:
    reason = " ".join(str(error).split())[:200]  # a proxy's page is no answer, and nothing to read
    return LostAnswerError(
        f"AWS did not answer the launch: {reason}; a machine may have been started",
        hint="`cloudtrain up` asks again for the same one; `cloudtrain down` removes it if it exists",
    )


def _judge(clients: Clients, request: dict[str, Any], error: boto.ClientError, *, last: bool) -> None:
    """Return when the same request is to be asked again, else raise what the refusal means."""
    code = code_of(error)
    if is_lost(error):
        if last:
            raise _unanswered(error) from error
        return
    if code in THROTTLED and not last:
        return
    abandon(clients, request)
    refusal = translate(error, "launching the machine")
    if code == "IdempotentParameterMismatch":
        made = _made_by(clients, request["ClientToken"])
        refusal = CloudError(f"{refusal}{made}", hint=refusal.hint, code=code)
    raise refusal from error


def _made_by(clients: Clients, token: str) -> str:
    """Say which machine a token made before, where the cloud tells."""
    filters: Any = [{"Name": "client-token", "Values": [token]}]
    try:
        rows = clients.advice.describe_instances(Filters=filters)["Reservations"]
    except FAILURES:
        return "; which machine it made before cannot be asked"
    ids = [str(item.get("InstanceId")) for row in rows for item in row.get("Instances", [])]
    return f"; it made {', '.join(ids)} before" if ids else ""


def abandon(clients: Clients, request: dict[str, Any]) -> None:
    """Cancel a spot request that a refused launch left open, found by the tags it was made with.

    It would launch a machine later, which nobody waits for. Only requests without a
    machine are cancelled. Raises `CloudError` when that cannot be done or known: nothing
    else may be tried then, because each try could leave one more.
    """
    if "InstanceMarketOptions" not in request:
        return
    pairs = {pair["Key"]: pair["Value"] for pair in request["TagSpecifications"][0]["Tags"]}
    filters: Any = [{"Name": f"tag:{key}", "Values": [pairs.get(key, "")]} for key in (ID, OWNER)]
    open_ones = ["one, perhaps"]
    try:
        rows = clients.ec2.describe_spot_instance_requests(Filters=filters)["SpotInstanceRequests"]
        open_ones = [
            str(row.get("SpotInstanceRequestId"))
            for row in rows
            if row.get("State") == "open" and not row.get("InstanceId")
        ]
        if open_ones:
            clients.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=open_ones)
    except FAILURES as error:
        raise CloudError(
            f"the refused launch left a spot request open ({', '.join(open_ones)}), and it cannot be cancelled now: "
            f"{translate(error, 'cancelling it').message}; it would launch a machine when there is room",
            hint="nothing else was tried; `cloudtrain down` cancels it as soon as AWS lets you",
        ) from error
