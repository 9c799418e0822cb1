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

from cloudtrain.errors import GoneError, LostAnswerError
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import LaunchSpec
from cloudtrain.providers.aws import tags
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import LOST_ANSWER, SERVER_SIDE, code_of, translate
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
            "HttpPutResponseHopLimit": 2,
            "InstanceMetadataTags": "enabled",
        },
        "TagSpecifications": tags.specifications(spec.tags, spot=spec.market == "spot"),
    }
    if spec.subnet:
        request["SubnetId"] = spec.subnet
    elif spec.zone:
        request["Placement"] = {"AvailabilityZone": spec.zone}
    request["SecurityGroupIds"] = [spec.security_group]
    if spec.market == "spot":
        # Persistent with stop: EC2 stops the machine on a reclaim and starts it again
        # by itself. Never with terminate-on-shutdown: AWS would launch a replacement.
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
        }
    else:
        request["InstanceInitiatedShutdownBehavior"] = spec.after_power_off
    return request


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
            machine = _refusal(clients, token, error, last=attempt == REPLAYS)
            if machine is not None:
                return machine
            sleep(0.2 * 2**attempt)
        except boto.BotoCoreError as error:
            raise translate(error, "launching the machine") from error
        else:
            return to_machine(answer["Instances"][0])
    raise AssertionError("the last attempt returns or raises")


def _unanswered(error: Exception) -> LostAnswerError:
    return LostAnswerError(
        f"AWS did not answer the launch: {error}; a machine may have been started",
        hint="`cloudtrain up` asks again for the same one; `cloudtrain down` removes it if it exists",
    )


def _refusal(clients: Clients, token: str, error: boto.ClientError, *, last: bool) -> Machine | None:
    """Return the token's machine, None to ask again, or raise what the refusal means."""
    code = code_of(error)
    if code == "IdempotentParameterMismatch":
        found = by_token(clients, token)
        if found is not None:
            return found
    if code in SERVER_SIDE:
        if last:
            raise _unanswered(error) from error
        return None
    if code in ("RequestLimitExceeded", "Throttling") and not last:
        return None
    raise translate(error, "launching the machine") from error


def by_token(clients: Clients, token: str) -> Machine | None:
    """Return the machine that a token made, if the cloud shows it."""
    try:
        answer = clients.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])
    except (boto.ClientError, boto.BotoCoreError) as error:
        raise translate(error, "looking up the launched machine") from error
    found = [item for row in answer["Reservations"] for item in row.get("Instances", [])]
    return to_machine(found[0]) if found else None
