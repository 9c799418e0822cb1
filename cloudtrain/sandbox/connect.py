"""EC2 Instance Connect: a key that a machine takes for a minute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from cloudtrain.sandbox.fleet import Fleet
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.state import Delays
from cloudtrain.sandbox.wire import Forward, Reply, Request, failure, json_reply

_KEY = re.compile(r"(ssh-(rsa|ed25519)) [A-Za-z0-9+/=]{60,}( \S.*)?\s*")


class Connect:
    """SendSSHPublicKey, with the errors that its API reference lists."""

    def __init__(self, fleet: Fleet, delays: Delays) -> None:
        self._fleet = fleet
        self._delays = delays

    def behaviours(self) -> Mapping[tuple[str, str], Behaviour]:
        """Return what to do for which call."""
        return {("ec2-instance-connect", "SendSSHPublicKey"): self.send}

    def send(self, request: Request, forward: Forward) -> Reply:  # noqa: ARG002 - moto only says yes
        """Push a key to a running machine; a user that it has not gets in nowhere."""
        asked = request.json
        name, key = str(asked.get("InstanceId", "")), str(asked.get("SSHPublicKey", ""))
        if not _KEY.fullmatch(key):
            return failure(request, "InvalidArgsException", "Invalid SSH public key")
        life = self._fleet.get(name)
        unseen = name in self._fleet.hidden()
        if life is None or unseen or life.region != request.region or life.state == "terminated":
            return failure(request, "EC2InstanceNotFoundException", f"Instance {name} does not exist", 404)
        zone = asked.get("AvailabilityZone")
        if zone and zone != life.record.availability_zone:
            text = f"Instance {name} is not in availability zone {zone}"
            return failure(request, "EC2InstanceNotFoundException", text, 404)
        if life.state != "running" or life.machine is None:
            text = f"Instance {name} is not in the running state"
            return failure(request, "EC2InstanceStateInvalidException", text)
        with suppress(LookupError):
            life.machine.push_key(str(asked.get("InstanceOSUser", "")), key, for_s=self._delays.pushed_key)
        return json_reply({"RequestId": "sandbox", "Success": True})
