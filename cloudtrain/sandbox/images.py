"""The images and image parameters that the sandbox knows.

Names, owners and snapshot sizes as Canonical and AWS publish them; the ids are made up
and the same in every region, so that they can never be mistaken for real ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

CANONICAL = "099720109477"
AMAZON = "898082745236"


@dataclass(frozen=True, slots=True)
class Image:
    """One image. `floor_gb` is the size of its root snapshot: no volume may be smaller."""

    id: str
    name: str
    owner: str
    floor_gb: int
    parameters: tuple[str, ...]


def _ubuntu(version: str, code: str, volume: str, folder: str) -> Image:
    names = tuple(
        f"/aws/service/canonical/ubuntu/server/{name}/stable/current/amd64/hvm/ebs-{volume}/ami-id"
        for name in (version, code)
    )
    image_id = f"ami-5a4db0c5{version.replace('.', ''):0>9}"
    name = f"ubuntu/images/{folder}/ubuntu-{code}-{version}-amd64-server-20260901"
    return Image(image_id, name, CANONICAL, 8, names)


def _dlami(kind: str, label: str, version: str, floor_gb: int, mark: str) -> Image:
    parameter = f"/aws/service/deeplearning/ami/x86_64/{kind}-ubuntu-{version}/latest/ami-id"
    image_id = f"ami-5a4db0d{mark}{version.replace('.', ''):0>9}"
    return Image(image_id, f"{label} (Ubuntu {version}) 20260901", AMAZON, floor_gb, (parameter,))


_MULTI = ("base-oss-nvidia-driver-gpu", "Deep Learning Base OSS Nvidia Driver GPU AMI")
_SINGLE = ("base-with-single-cuda", "Deep Learning Base AMI with Single CUDA")

IMAGES = (
    _ubuntu("22.04", "jammy", "gp2", "hvm-ssd"),
    _ubuntu("24.04", "noble", "gp3", "hvm-ssd-gp3"),
    _ubuntu("26.04", "resolute", "gp3", "hvm-ssd-gp3"),
    *(_dlami(*_MULTI, version, 75, "1") for version in ("22.04", "24.04")),
    *(_dlami(*_SINGLE, version, 35, "2") for version in ("22.04", "24.04")),
)
BY_ID = {image.id: image for image in IMAGES}
PARAMETERS = {name: image.id for image in IMAGES for name in image.parameters}
ROOT_DEVICE = "/dev/sda1"


def write_moto_images(path: Path) -> None:
    """Write the file that moto reads instead of its own images."""
    # Without creation_date: moto 5.2.1 fails to read one from such a file.
    rows = [
        {
            "ami_id": image.id,
            "name": image.name,
            "owner_id": image.owner,
            "architecture": "x86_64",
            "description": image.name,
            "hypervisor": "xen",
            "image_type": "machine",
            "platform": None,
            "public": True,
            "root_device_name": ROOT_DEVICE,
            "root_device_type": "ebs",
            "state": "available",
            "virtualization_type": "hvm",
            "sriov": "simple",
        }
        for image in IMAGES
    ]
    path.write_text(json.dumps(rows))


def parents_of(image: Path) -> tuple[str, ...]:
    """Return the images that one builds on, the nearest first."""
    try:
        return tuple(json.loads((image / "image.json").read_text())["parents"])
    except OSError:
        return ()


def parents_of_any(folder: Path) -> set[str]:
    """Return every image that another builds on."""
    return {name for path in folder.glob("*/image.json") for name in parents_of(path.parent)}
