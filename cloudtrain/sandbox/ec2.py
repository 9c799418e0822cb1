"""Where EC2 behaves otherwise than moto: one function a call.

Each takes the call and a way to let moto answer it, and may change either side.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from cloudtrain.sandbox import images
from cloudtrain.sandbox.account import Account
from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.fleet import CODES, Fleet, Life
from cloudtrain.sandbox.launches import Launches
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.spot_calls import SpotCalls
from cloudtrain.sandbox.wire import Forward, Reply, Request, dry_run, failure, packed, tree, xml

_BY_ID = {"client-token", "instance-lifecycle", "spot-instance-request-id"}
_SHUTDOWN = "InstanceInitiatedShutdownBehavior"
_ALLOWED = {
    "StartInstances": {"stopped", "running", "pending"},
    "StopInstances": {"running", "stopping", "stopped"},
    "TerminateInstances": set(CODES),
}
_NOTHING_TO_DO = {
    "StartInstances": {"running", "pending"},
    "StopInstances": {"stopping", "stopped"},
    "TerminateInstances": {"shutting-down", "terminated"},
}


class Ec2:
    """The calls that are not moto's alone."""

    def __init__(self, emulator: Emulator, fleet: Fleet, account: Account, launches: Launches) -> None:
        self._emulator = emulator
        self._fleet = fleet
        self._account = account
        self._launches = launches
        self._spot = SpotCalls(emulator, launches.spot)

    def behaviours(self) -> Mapping[tuple[str, str], Behaviour]:
        """Return what to do for which call."""
        return {
            ("ec2", "RunInstances"): self._launches.run,
            ("ec2", "DescribeInstances"): self.describe_instances,
            ("ec2", "DescribeImages"): describe_images,
            ("ec2", "DescribeVolumes"): self.describe_volumes,
            ("ec2", "StartInstances"): self.change,
            ("ec2", "StopInstances"): self.change,
            ("ec2", "TerminateInstances"): self.change,
            ("ec2", "ModifyInstanceAttribute"): self.modify,
            ("ec2", "DeleteSecurityGroup"): self.delete_group,
            ("ec2", "GetConsoleOutput"): self.console,
            **self._spot.behaviours(),
        }

    def describe_instances(self, request: Request, forward: Forward) -> Reply:
        """Leave out what a describe does not see yet, and understand the filters of launches."""
        hidden = self._fleet.hidden()
        unseen = [name for name in request.numbered("InstanceId") if name in hidden]
        if unseen:
            return _no_instance(request, unseen[0])
        reply = forward(self._by_id(request))
        return _without(reply, hidden) if hidden and reply.status == 200 else reply

    def describe_volumes(self, request: Request, forward: Forward) -> Reply:
        """Say whether a volume goes with its instance, which moto knows and does not say."""
        reply = forward(request)
        if reply.status != 200:
            return reply
        root = tree(reply)
        for item in root.findall(".//{*}attachmentSet/{*}item"):
            life = self._fleet.get(item.findtext("{*}instanceId", ""))
            mapping: Any = life.record.block_device_mapping if life else {}
            device = mapping.get(item.findtext("{*}device", ""))
            if device is not None and item.find("{*}deleteOnTermination") is None:
                flag = ET.SubElement(item, item.tag.replace("}item", "}deleteOnTermination"))
                flag.text = str(bool(device.delete_on_termination)).lower()
        return packed(reply, root)

    def change(self, request: Request, forward: Forward) -> Reply:
        """Start, stop or terminate: all of the named instances, or none of them."""
        if request.params.get("DryRun") == "true":
            return forward(request)
        with self._emulator.lock:
            lives: list[Life] = []
            for name in request.numbered("InstanceId"):
                life = self._life(request, name)
                if life is None:
                    return _no_instance(request, name)
                refusal = _refused(request, life) or self._refused(request, life)
                if refusal is not None:
                    return refusal
                lives.append(life)
            changes = [self._changed(request.action, life) for life in lives]
        return xml(request.action, f"<instancesSet>{''.join(changes)}</instancesSet>")

    def modify(self, request: Request, forward: Forward) -> Reply:
        """Change the shutdown behaviour, which moto takes for a change of groups; hand on the rest."""
        value = request.params.get(f"{_SHUTDOWN}.Value")
        if request.params.get("Attribute", "").lower() == _SHUTDOWN.lower():
            value = request.params.get("Value")
        if value is None:
            return forward(request)
        name = request.params.get("InstanceId", "")
        life = self._life(request, name)
        if life is None:
            return _no_instance(request, name)
        if value not in ("stop", "terminate"):
            text = f"Value ({value}) for parameter instanceInitiatedShutdownBehavior is invalid."
            return failure(request, "InvalidParameterValue", text)
        if request.params.get("DryRun") == "true":
            return dry_run(request)
        with self._emulator.lock:
            life.record.instance_initiated_shutdown_behavior = value
        return xml(request.action, "<return>true</return>")

    def delete_group(self, request: Request, forward: Forward) -> Reply:
        """Refuse while an instance is in the group, as EC2 does."""
        group_id = request.params.get("GroupId", "")
        name = request.params.get("GroupName")
        if name and not group_id:
            found = self._emulator.ec2(request.region).get_security_group_from_name(name)
            group_id = str(found.id) if found else ""
        if self._fleet.users_of(group_id):
            return failure(
                request, "DependencyViolation", f"resource {group_id or name} has a dependent object"
            )
        return forward(request)

    def console(self, request: Request, forward: Forward) -> Reply:  # noqa: ARG002 - moto has a text of 2006
        """Return what the machine wrote to its console."""
        name = request.params.get("InstanceId", "")
        life = self._life(request, name)
        if life is None:
            return _no_instance(request, name)
        text = base64.b64encode(life.machine.console().encode()).decode() if life.machine else ""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        inner = (
            f"<instanceId>{escape(name)}</instanceId><timestamp>{stamp}</timestamp><output>{text}</output>"
        )
        return xml(request.action, inner)

    def _life(self, request: Request, name: str) -> Life | None:
        life = self._fleet.get(name)
        return life if life is not None and life.region == request.region else None

    def _by_id(self, request: Request) -> Request:
        """Turn the filters that moto does not know into one by id, which it does."""
        filters = request.filters()
        own = [name for name in filters if name in _BY_ID]
        if not own:
            return request
        allowed = [self._ids(request.region, name, set(filters.pop(name))) for name in own]
        allowed += [set(filters.pop("instance-id"))] if "instance-id" in filters else []
        ids = sorted(set[str].intersection(*allowed)) or ["i-none"]
        params = {k: v for k, v in request.params.items() if not k.startswith("Filter.")}
        for number, (name, values) in enumerate([*filters.items(), ("instance-id", ids)], 1):
            params[f"Filter.{number}.Name"] = name
            params |= {f"Filter.{number}.Value.{at}": value for at, value in enumerate(values, 1)}
        return request.with_params(params)

    def _ids(self, region: str, name: str, wanted: set[str]) -> set[str]:
        if name == "client-token":
            return set(self._launches.ids_of(region, wanted))
        lives = [life for life in self._fleet.lives() if life.region == region]
        if name == "instance-lifecycle":
            return {str(life.record.id) for life in lives if life.spot and "spot" in wanted}
        return {
            str(life.record.id)
            for life in lives
            if getattr(life.record, "spot_instance_request_id", None) in wanted
        }

    def _refused(self, request: Request, life: Life) -> Reply | None:
        refusal = self._spot.refusal(request, life) if life.spot else None
        if refusal is not None or request.action != "StartInstances" or life.state != "stopped":
            return refusal
        record, market = life.record, "spot" if life.spot else "on-demand"
        return self._account.refusal(request, record.instance_type, market, record.availability_zone)

    def _changed(self, action: str, life: Life) -> str:
        before = life.state
        if before not in _NOTHING_TO_DO[action]:
            steps = {
                "StartInstances": self._fleet.start,
                "StopInstances": self._fleet.stop,
                "TerminateInstances": self._fleet.terminate,
            }
            steps[action](life)
            if action == "StartInstances" and life.spot:
                self._spot.started(life)
        now = life.state
        return (
            f"<item><instanceId>{life.record.id}</instanceId>"
            f"<currentState><code>{CODES[now]}</code><name>{now}</name></currentState>"
            f"<previousState><code>{CODES[before]}</code><name>{before}</name></previousState></item>"
        )


def describe_images(request: Request, forward: Forward) -> Reply:
    """Say the real size of the root snapshot, where moto says 15 GB of every image."""
    reply = forward(request)
    if reply.status != 200:
        return reply
    root = tree(reply)
    for item in root.findall(".//{*}item"):
        image = images.BY_ID.get(item.findtext("{*}imageId", ""))
        for size in item.findall(".//{*}volumeSize") if image else ():
            size.text = str(image.floor_gb) if image else size.text
    return packed(reply, root)


def _refused(request: Request, life: Life) -> Reply | None:
    name, action = life.record.id, request.action
    if action == "TerminateInstances" and str(life.record.disable_api_termination).lower() == "true":
        text = f"The instance '{name}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
        return failure(request, "OperationNotPermitted", text)
    if life.state not in _ALLOWED[action]:
        verb = action.removesuffix("Instances").lower()
        text = f"The instance '{name}' is not in a state from which it can be {verb}{'ped' if verb == 'stop' else 'ed'}."
        return failure(request, "IncorrectInstanceState", text)
    return None


def _no_instance(request: Request, name: str) -> Reply:
    return failure(request, "InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")


def _without(reply: Reply, hidden: set[str]) -> Reply:
    root = tree(reply)
    for reservations in root.findall(".//{*}reservationSet"):
        for reservation in list(reservations):
            instances = reservation.find("{*}instancesSet")
            for item in list(instances if instances is not None else ()):
                if instances is not None and item.findtext("{*}instanceId") in hidden:
                    instances.remove(item)
            if instances is None or len(instances) == 0:
                reservations.remove(reservation)
    return packed(reply, root)
