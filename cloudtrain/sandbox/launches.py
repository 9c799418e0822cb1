"""RunInstances as EC2 does it: once a token, with the checks that moto leaves out."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from dataclasses import dataclass
from typing import Any

from cloudtrain.sandbox import images
from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.fleet import Fleet
from cloudtrain.sandbox.seed import seed_of
from cloudtrain.sandbox.wire import Forward, Reply, Request, failure, packed, tree

USER_DATA_LIMIT = 16384
TOKEN_LIMIT = 64
_SIZE = re.compile(r"BlockDeviceMapping\.(\d+)\.Ebs\.VolumeSize")
_SPEC = re.compile(r"TagSpecification\.(\d+)\.(ResourceType|Tag\.(\d+)\.(Key|Value))")
_NOT_COMPARED = {"Action", "Version"}


@dataclass(frozen=True, slots=True)
class _Launch:
    params: dict[str, str]
    reply: Reply
    ids: tuple[str, ...]


class Launches:
    """Every launch so far, by region and token."""

    def __init__(self, emulator: Emulator, fleet: Fleet) -> None:
        self._emulator = emulator
        self._fleet = fleet
        self._lock = threading.Lock()
        self._done: dict[tuple[str, str], _Launch] = {}

    def run(self, request: Request, forward: Forward) -> Reply:
        """Answer one RunInstances."""
        token = request.params.get("ClientToken", "")
        params = {k: v for k, v in request.params.items() if k not in _NOT_COMPARED}
        with self._lock:
            done = self._done.get((request.region, token)) if token else None
            if done is not None:
                return self._again(request, done, params)
            refusal = _refusal(request, token)
            if refusal is not None:
                return refusal
            with self._emulator.lock:
                reply, ids = self._launch(request, forward)
            if ids and token:
                self._done[request.region, token] = _Launch(params, reply, ids)
            return reply

    def ids_of(self, region: str, tokens: set[str]) -> list[str]:
        """Return the instances that were launched with one of these tokens."""
        found = [self._done.get((region, token)) for token in tokens]
        return [instance_id for launch in found if launch for instance_id in launch.ids]

    def _again(self, request: Request, done: _Launch, params: dict[str, str]) -> Reply:
        if done.params != params:
            text = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
            return failure(request, "IdempotentParameterMismatch", text)
        lives = [self._fleet.get(name) for name in done.ids]
        if any(life is None or life.state in ("shutting-down", "terminated") for life in lives):
            text = f"The instance {done.ids[0]} of this client token is terminated."
            return failure(request, "IdempotentInstanceTerminated", text)
        return done.reply

    def _launch(self, request: Request, forward: Forward) -> tuple[Reply, tuple[str, ...]]:
        reply = forward(request)
        if reply.status != 200:
            return reply, ()
        root = tree(reply)
        ids = tuple(str(node.text) for node in root.findall(".//{*}instanceId"))
        for parent in root.iter():
            # A machine has no address before it runs; moto gives one at once.
            for child in [c for c in parent if c.tag.endswith(("}ipAddress", "}association"))]:
                parent.remove(child)
        backend = self._emulator.ec2(request.region)
        for instance_id in ids:
            self._adopt(backend, request, instance_id)
        return packed(reply, root), ids

    def _adopt(self, backend: Any, request: Request, instance_id: str) -> None:  # noqa: ANN401
        record = backend.get_instance(instance_id)
        pair = backend.key_pairs.get(request.params.get("KeyName", ""))
        public = getattr(pair, "material_public", None) or getattr(pair, "material", None)
        public = public.decode() if isinstance(public, bytes) else public
        for nic in record.nics.values():
            nic.add_tags(_tags(request, "network-interface"))
        text = _user_data(request.params.get("UserData", ""))
        seed = seed_of((text or b"").decode("utf-8", "replace"), public)
        self._fleet.adopt(record, seed, request.region)


def _refusal(request: Request, token: str) -> Reply | None:
    params = request.params
    if len(token) > TOKEN_LIMIT:
        return failure(request, "InvalidParameterValue", "Client token is longer than 64 characters")
    text = _user_data(params.get("UserData", ""))
    if text is None:
        return failure(request, "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data")
    if len(text) > USER_DATA_LIMIT:
        return failure(request, "InvalidParameterValue", "User data is limited to 16384 bytes")
    low, high = (int(params.get(name, "1")) for name in ("MinCount", "MaxCount"))
    if not 1 <= low <= high:
        return failure(request, "InvalidParameterValue", f"Value ({low}) for parameter minCount is invalid.")
    image = images.BY_ID.get(params.get("ImageId", ""))
    size = _root_size(params)
    if image is not None and size is not None and size < image.floor_gb:
        message = f"Volume of size {size}GB is smaller than snapshot 'snap-{image.id[4:]}', expect size >= {image.floor_gb}GB"
        return failure(request, "InvalidBlockDeviceMapping", message)
    return None


def _root_size(params: Any) -> int | None:  # noqa: ANN401
    for name, value in params.items():
        match = _SIZE.fullmatch(name)
        if match and params.get(f"BlockDeviceMapping.{match[1]}.DeviceName") == images.ROOT_DEVICE:
            return int(value)
    return None


def _user_data(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _tags(request: Request, kind: str) -> dict[str, str]:
    parts = [(match, value) for name, value in request.params.items() if (match := _SPEC.fullmatch(name))]
    wanted = {match[1] for match, value in parts if match[2] == "ResourceType" and value == kind}
    found: dict[str, dict[str, str]] = {}
    for match, value in parts:
        if match[1] in wanted and match[3]:
            found.setdefault(f"{match[1]}.{match[3]}", {})[match[4]] = value
    return {pair["Key"]: pair.get("Value", "") for pair in found.values()}
