"""NVIDIA GPUs by PCI id, and which driver a machine with one needs.

Pure tables and functions: nothing is asked of a machine here. Before a driver is
installed the PCI bus is the only witness, so the compute capability that decides
between driver branches has to come from the device id.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.models.machine import Gpu

OLDEST_DRIVER = 525
"""CUDA 12.x runs on driver 525 and newer by minor-version compatibility (NVIDIA's CUDA
compatibility guide); wheels for older ones are no longer built."""

CUDA13_DRIVER = 580
"""CUDA 13.x needs driver 580 (same guide)."""

BRANCH = 580
"""The server branch we install: the last one with modules for Volta (620 has open modules
only), new enough for CUDA 13, and in Ubuntu 22.04's and 24.04's own archive."""


@dataclass(frozen=True, slots=True)
class Runfile:
    """NVIDIA's own installer of one driver."""

    version: str
    folder: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return f"NVIDIA-Linux-x86_64-{self.version}.run"


RUNFILE = Runfile(
    "580.95.05",
    "https://us.download.nvidia.com/tesla/580.95.05",
    "849ef0ef8e842b9806b2cde9f11c1303d54f1a9a769467e4e5d961b2fe1182a7",
)
"""Of the same branch; the digest is the one that nixpkgs checks it by."""

OLDEST_GPU: tuple[int, int] = (5, 0)
"""Maxwell: what the branch we install still drives (NVIDIA's list of supported GPUs)."""

TURING: tuple[int, int] = (7, 5)
"""Open kernel modules begin here; older GPUs need the proprietary ones (NVIDIA's guide)."""

PCI: dict[str, tuple[str, tuple[int, int]]] = {
    "102d": ("Tesla K80", (3, 7)),
    "13f2": ("Tesla M60", (5, 2)),
    "15f8": ("Tesla P100-PCIE-16GB", (6, 0)),
    "1b38": ("Tesla P40", (6, 1)),
    "1db1": ("Tesla V100-SXM2-16GB", (7, 0)),
    "1db4": ("Tesla V100-PCIE-16GB", (7, 0)),
    "1db5": ("Tesla V100-SXM2-32GB", (7, 0)),
    "1db6": ("Tesla V100-PCIE-32GB", (7, 0)),
    "1eb8": ("Tesla T4", (7, 5)),
    "20b0": ("NVIDIA A100-SXM4-40GB", (8, 0)),
    "20b2": ("NVIDIA A100-SXM4-80GB", (8, 0)),
    "2235": ("NVIDIA A40", (8, 6)),
    "2237": ("NVIDIA A10G", (8, 6)),
    "26b9": ("NVIDIA L40S", (8, 9)),
    "27b8": ("NVIDIA L4", (8, 9)),
    "2330": ("NVIDIA H100 80GB HBM3", (9, 0)),
    "2335": ("NVIDIA H200", (9, 0)),
    "2901": ("NVIDIA B200", (10, 0)),
}
"""PCI device id (vendor 10de) to name and compute capability, as the PCI ID database and
NVIDIA's CUDA GPU list have them. What is not here is told by `_BELOW`."""

_BELOW: tuple[tuple[int, tuple[int, int]], ...] = (
    (0x1340, (3, 0)),  # Kepler and older
    (0x15F0, (5, 0)),  # Maxwell
    (0x1600, (6, 0)),  # Pascal: GP100
    (0x1B00, (5, 2)),  # Maxwell
    (0x1D80, (6, 1)),  # Pascal
    (0x1E00, (7, 0)),  # Volta
)
"""Below which device id which generation's chips lie (PCI ID database); from 1e00 on Turing and newer."""


@dataclass(frozen=True, slots=True)
class DriverPlan:
    """The driver to install. `open` chooses the open kernel modules."""

    branch: int
    open: bool
    reason: str

    @property
    def flavour(self) -> str:
        """The middle of Ubuntu's package names, e.g. `580-server-open`."""
        return f"{self.branch}-server-open" if self.open else f"{self.branch}-server"


def from_pci(device: str) -> Gpu:
    """Name the GPU with this PCI device id (four hex digits); no driver has spoken yet."""
    name, _ = PCI.get(device.lower(), (f"NVIDIA GPU 10de:{device.lower()}", None))
    return Gpu(name)


def compute_of(gpu: Gpu) -> tuple[int, int] | None:
    """Return the compute capability the driver reported, or the table's; None if unknown."""
    if gpu.compute is not None:
        return gpu.compute
    known = next((compute for name, compute in PCI.values() if name == gpu.name), None)
    return known or _by_id(gpu.name)


def _by_id(name: str) -> tuple[int, int] | None:
    prefix, _, device = name.rpartition("10de:")
    if not prefix:
        return None
    return next((compute for end, compute in _BELOW if int(device, 16) < end), None)


def driver_major(gpus: tuple[Gpu, ...]) -> int | None:
    """Return the branch of the driver that answers, e.g. 580; None when none does."""
    versions = [gpu.driver for gpu in gpus if gpu.driver]
    head = versions[0].split(".")[0] if versions else ""
    return int(head) if head.isdigit() else None


def driver_plan(gpus: tuple[Gpu, ...]) -> DriverPlan | None:
    """Return the driver these GPUs need installed, or None when theirs will do.

    One GPU older than Turing makes the whole machine need the proprietary modules.
    """
    if not gpus:
        return None
    major = driver_major(gpus)
    if major is not None and major >= OLDEST_DRIVER:
        return None
    if any((compute_of(gpu) or TURING) < OLDEST_GPU for gpu in gpus):
        return None  # Kepler's last driver is 470, which no wheel of today uses
    oldest = min((compute_of(gpu) or TURING for gpu in gpus), default=TURING)
    state = "no driver answers" if major is None else f"driver {major} is older than {OLDEST_DRIVER}"
    return DriverPlan(BRANCH, oldest >= TURING, f"{gpus[0].name}: {state}")
