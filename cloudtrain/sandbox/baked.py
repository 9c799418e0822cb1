"""Images made of machines. Where a machine has a disk of its own, the image really is that disk.

They outlive the server, as images outlive everything else in an account: each has a
folder with the disk and, in `image.json`, what moto is told of it at the next start.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.fleet import Fleet, Life
from cloudtrain.sandbox.images import ROOT_DEVICE, parents_of, parents_of_any
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.wire import Forward, Reply, Request, failure, tree

_SPECIFICATION = "TagSpecification."


class Baked:
    """All images that were made here. `folder` holds one folder for each."""

    def __init__(self, emulator: Emulator, fleet: Fleet, folder: Path) -> None:
        self._emulator = emulator
        self._fleet = fleet
        self._folder = folder
        for path in sorted(folder.glob("*/image.json")):
            _restore(emulator, path.parent.name, json.loads(path.read_text()))

    def behaviours(self) -> Mapping[tuple[str, str], Behaviour]:
        """Return what to do for which call."""
        return {("ec2", "CreateImage"): self.create, ("ec2", "DeregisterImage"): self.deregister}

    def create(self, request: Request, forward: Forward) -> Reply:
        """Make an image: pending at first, and of a running machine only after a reboot, as on EC2."""
        refusal = self._refused(request)
        if refusal is not None:
            return refusal
        plain, of_snapshot = _without_snapshot_tags(request)
        reply = forward(plain)
        image_id = tree(reply).findtext("{*}imageId", "") if reply.status == 200 else ""
        if image_id:
            record = self._emulator.ec2(request.region).amis[image_id]
            record.state, record.root_device_type = "pending", "ebs"
            record.ebs_snapshot.add_tags(of_snapshot)
            life = self._fleet.get(request.params["InstanceId"])
            reboot = request.params.get("NoReboot") != "true"
            threading.Thread(target=self._keep, args=(life, record, reboot), daemon=True).start()
        return reply

    def deregister(self, request: Request, forward: Forward) -> Reply:
        """Forget an image. Its disk stays while a machine or another image builds on it."""
        reply = forward(request)
        image_id = request.params.get("ImageId", "")
        if reply.status == 200 and request.params.get("DryRun") != "true":
            # moto would go on launching from it.
            self._emulator.ec2(request.region).deleted_amis.remove(image_id)
        folder = self._folder / image_id
        if reply.status == 200 and image_id and folder.is_dir():
            (folder / "image.json").unlink(missing_ok=True)
            used = {life.record.image_id for life in self._fleet.lives() if life.alive}
            if image_id not in used | parents_of_any(self._folder):
                shutil.rmtree(folder, ignore_errors=True)
        return reply

    def save(self) -> None:
        """Write every image anew, with the tags it has by now."""
        for path in self._folder.glob("*/image.json"):
            kept: dict[str, Any] = json.loads(path.read_text())
            record = self._emulator.ec2(kept["region"]).amis.get(path.parent.name)
            if record is not None:
                self._write(record, kept["region"], tuple(kept["parents"]))

    def _refused(self, request: Request) -> Reply | None:
        name, image = request.params.get("InstanceId", ""), request.params.get("Name", "")
        life = self._fleet.get(name)
        if life is None:
            return failure(request, "InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        if life.state not in ("running", "stopped"):
            text = f"The instance '{name}' is not in the 'running' or 'stopped' state."
            return failure(request, "IncorrectInstanceState", text)
        for other in self._emulator.ec2(request.region).amis.values():
            if other.name == image:
                text = f"AMI name {image} is already in use by AMI {other.id}"
                return failure(request, "InvalidAMIName.Duplicate", text)
        return None

    def _keep(self, life: Life, record: Any, reboot: bool) -> None:  # noqa: ANN401
        try:
            with life.moving:
                if life.machine is not None:
                    life.machine.keep(self._folder / record.id, reboot=reboot)
            from_image = self._folder / str(life.record.image_id)
            parents = (from_image.name, *parents_of(from_image)) if from_image.is_dir() else ()
            self._write(record, life.region, parents)
            record.state = "available"
        except (OSError, TimeoutError):
            traceback.print_exc(file=sys.stderr)
            record.state = "failed"

    def _write(self, record: Any, region: str, parents: tuple[str, ...]) -> None:  # noqa: ANN401
        snapshot = record.ebs_snapshot
        kept = {
            "name": record.name,
            "description": record.description,
            "region": region,
            "parents": parents,
            "created": record.creation_date.isoformat(),
            "tags": {tag["key"]: tag["value"] for tag in record.get_tags()},
            "snapshot": snapshot.id,
            "snapshot_tags": {tag["key"]: tag["value"] for tag in snapshot.get_tags()},
        }
        folder = self._folder / record.id
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "image.part"
        part.write_text(json.dumps(kept))
        part.replace(folder / "image.json")


def _restore(emulator: Emulator, image_id: str, kept: dict[str, Any]) -> None:
    """Tell moto of an image that an earlier server made, with its snapshot."""
    region = emulator.ec2(kept["region"])
    from moto.ec2.models.amis import Ami

    record: Any = Ami(
        region,
        image_id,
        name=kept["name"],
        description=kept["description"],
        architecture="x86_64",
        virtualization_type="hvm",
        root_device_type="ebs",
        root_device_name=ROOT_DEVICE,
        creation_date=datetime.fromisoformat(kept["created"]),
        tags=kept["tags"],
    )
    region.amis[image_id] = record
    snapshot = record.ebs_snapshot
    del region.snapshots[snapshot.id]
    snapshot.id = kept["snapshot"]
    region.snapshots[snapshot.id] = snapshot
    snapshot.add_tags(kept["snapshot_tags"])


def _without_snapshot_tags(request: Request) -> tuple[Request, dict[str, str]]:
    """Return the call as moto understands it, and the tags that the snapshot gets."""
    params, number, found = dict(request.params), 1, dict[str, str]()
    while (kind := request.params.get(f"{_SPECIFICATION}{number}.ResourceType")) is not None:
        prefix = f"{_SPECIFICATION}{number}."
        if kind == "snapshot":
            own = {key: value for key, value in request.params.items() if key.startswith(prefix)}
            for key, value in own.items():
                del params[key]
                if key.endswith(".Key"):
                    found[value] = own.get(f"{key[:-4]}.Value", "")
        number += 1
    return request.with_params(params), found
