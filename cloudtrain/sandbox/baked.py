"""Images made of machines. Where a machine has a disk of its own, the image really is that disk.

They outlive the server, as images outlive everything else in an account: each has a
folder with the disk and, in `image.json`, the row that moto reads at its start.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cloudtrain.sandbox.emulator import ACCOUNT, Emulator
from cloudtrain.sandbox.fleet import Fleet, Life
from cloudtrain.sandbox.images import ROOT_DEVICE, parents_of, parents_of_any
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.wire import Forward, Reply, Request, failure, tree


class Baked:
    """All images that were made here. `folder` holds one folder for each."""

    def __init__(self, emulator: Emulator, fleet: Fleet, folder: Path) -> None:
        self._emulator = emulator
        self._fleet = fleet
        self._folder = folder

    def behaviours(self) -> Mapping[tuple[str, str], Behaviour]:
        """Return what to do for which call."""
        return {("ec2", "CreateImage"): self.create, ("ec2", "DeregisterImage"): self.deregister}

    def create(self, request: Request, forward: Forward) -> Reply:
        """Make an image: pending at first, and of a running machine only after a reboot, as on EC2."""
        name = request.params.get("InstanceId", "")
        life = self._fleet.get(name)
        if life is None:
            return failure(request, "InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        if life.state not in ("running", "stopped"):
            text = f"The instance '{name}' is not in the 'running' or 'stopped' state."
            return failure(request, "IncorrectInstanceState", text)
        reply = forward(request)
        image_id = tree(reply).findtext("{*}imageId", "") if reply.status == 200 else ""
        if image_id:
            record = self._emulator.ec2(request.region).amis[image_id]
            record.state = "pending"
            reboot = request.params.get("NoReboot") != "true"
            threading.Thread(target=self._keep, args=(life, record, reboot), daemon=True).start()
        return reply

    def deregister(self, request: Request, forward: Forward) -> Reply:
        """Forget an image. Its disk stays while a machine or another image builds on it."""
        reply = forward(request)
        image_id = request.params.get("ImageId", "")
        folder = self._folder / image_id
        if reply.status == 200 and image_id and folder.is_dir():
            (folder / "image.json").unlink(missing_ok=True)
            used = {life.record.image_id for life in self._fleet.lives() if life.alive}
            if image_id not in used | parents_of_any(self._folder):
                shutil.rmtree(folder, ignore_errors=True)
        return reply

    def save(self) -> None:
        """Write every image's row anew, with the tags it has by now."""
        for path in self._folder.glob("*/image.json"):
            kept: dict[str, Any] = json.loads(path.read_text())
            record = self._emulator.ec2(kept["region"]).amis.get(path.parent.name)
            if record is not None:
                self._write(record, kept["region"], tuple(kept["parents"]))

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
        tags = cast("list[dict[str, str]]", record.get_tags())
        row = {
            "ami_id": record.id,
            "name": record.name,
            "owner_id": ACCOUNT,
            "architecture": "x86_64",
            "description": record.description,
            "hypervisor": "xen",
            "image_type": "machine",
            "platform": None,
            "public": False,
            "root_device_name": ROOT_DEVICE,
            "root_device_type": "ebs",
            "state": "available",
            "virtualization_type": "hvm",
            "sriov": "simple",
            "tags": {tag["key"]: tag["value"] for tag in tags},
        }
        folder = self._folder / record.id
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "image.part"
        part.write_text(json.dumps({"row": row, "region": region, "parents": parents}))
        part.replace(folder / "image.json")
