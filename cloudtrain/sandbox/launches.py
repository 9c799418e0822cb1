"""RunInstances as EC2 does it: once a token, with the checks that moto leaves out."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from cloudtrain.sandbox import images, market
from cloudtrain.sandbox.account import Account
from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.fleet import Fleet
from cloudtrain.sandbox.seed import seed_of
from cloudtrain.sandbox.spot import Spot
from cloudtrain.sandbox.state import Delays
from cloudtrain.sandbox.wire import Forward, Reply, Request, failure, packed, tree

USER_DATA_LIMIT = 16384
TOKEN_LIMIT = 64
_SIZE = re.compile(r"BlockDeviceMapping\.(\d+)\.Ebs\.VolumeSize")
_NOT_COMPARED = {"Action", "Version"}


@dataclass(frozen=True, slots=True)
class _Launch:
    params: dict[str, str]
    reply: Reply
    ids: tuple[str, ...]


class Launches:
    """Every launch so far, by region and token."""

    def __init__(
        self, emulator: Emulator, fleet: Fleet, account: Account, delays: Delays, spot_knob: Path
    ) -> None:
        self.spot = Spot(emulator, fleet, account, delays, spot_knob, self._relaunch)
        self._emulator = emulator
        self._fleet = fleet
        self._account = account
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
            refusal = _refusal(request, token) or market.refusal(request)
            if refusal is not None:
                return refusal
            if params.get("DryRun") == "true":
                return forward(request)
            with self._emulator.lock:
                reply, ids = self._launch(request, forward)
                if ids and market.is_spot(request):
                    reply = self._with_requests(request, reply, ids)
                elif reply.status == 500:
                    self._hold(request)
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
        type_name, kind = request.params.get("InstanceType", ""), market.name(request)
        backend = self._emulator.ec2(request.region)
        zone = market.zone(request, backend)
        refusal = self._account.refusal(request, type_name, kind, zone, int(request.params["MinCount"]))
        if refusal is not None:
            return refusal, ()
        zone = zone or self._account.zone(request.region, type_name, kind)
        low = market.price_refusal(request, zone)
        if low is not None:
            return low, ()
        reply = forward(market.placed(request, zone))
        if reply.status != 200:
            return reply, ()
        root = tree(reply)
        ids = tuple(str(node.text) for node in root.findall(".//{*}instanceId"))
        for parent in root.iter():
            # A machine has no address before it runs; moto gives one at once.
            for child in [c for c in parent if c.tag.endswith(("}ipAddress", "}association"))]:
                parent.remove(child)
        for instance_id in ids:
            self._adopt(backend, request, instance_id)
        return packed(reply, root), ids

    def _relaunch(self, request: Request) -> tuple[Reply, tuple[str, ...]]:
        return self._launch(request, self._emulator.forward)

    def _hold(self, request: Request) -> None:
        if self._account.settings().open_requests and market.is_persistent(request):
            one = market.spot_request(request, "", 0.0)
            one.become("open", "capacity-not-available")
            self.spot.add(one, market.tags(request, "spot-instances-request"), None)

    def _with_requests(self, request: Request, reply: Reply, ids: tuple[str, ...]) -> Reply:
        root = tree(reply)
        items = {item.findtext("{*}instanceId"): item for item in root.findall(".//{*}instancesSet/{*}item")}
        for name in ids:
            life = self._fleet.get(name)
            if life is not None:
                one = market.spot_request(request, "", life.visible_at)
                self.spot.add(one, market.tags(request, "spot-instances-request"), life)
                node = ET.SubElement(items[name], items[name].tag.replace("}item", "}spotInstanceRequestId"))
                node.text = one.id
        return packed(reply, root)

    def _adopt(self, backend: Any, request: Request, instance_id: str) -> None:  # noqa: ANN401
        record = backend.get_instance(instance_id)
        pair = backend.key_pairs.get(request.params.get("KeyName", ""))
        public = getattr(pair, "material_public", None) or getattr(pair, "material", None)
        public = public.decode() if isinstance(public, bytes) else public
        for nic in record.nics.values():
            nic.add_tags(market.tags(request, "network-interface"))
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
