"""Which PyTorch fits a driver and a GPU, decided before anything is downloaded.

A wheel that does not fit installs without a word and then trains on the CPU, or
fails at the first kernel; so the choice is made here from tables, and said.
Versions, Python floors and default CUDA are from the wheels' own metadata on the
package index (2026-11-21), further indexes from PyTorch's "previous versions" page.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.catalog.nvidia import CUDA13_DRIVER, OLDEST_DRIVER, TURING, compute_of
from cloudtrain.errors import UsageError
from cloudtrain.models.machine import Gpu

INDEX = "https://download.pytorch.org/whl"
"""PyTorch's own wheels, in folders by CUDA: cu126, cu130, cpu."""

BLACKWELL: tuple[int, int] = (10, 0)
"""Compute capability of the first GPUs that builds for CUDA 12.6 leave out."""

FLOOR = "2.6.0"
"""The oldest PyTorch that `auto` settles for: the trainers of today ask for it."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One release. `cuda` is the package index's build; `indexes` are PyTorch's own."""

    torch: str
    torchvision: str
    cuda: tuple[int, int]
    indexes: tuple[str, ...]


WHEELS: tuple[Wheel, ...] = (
    Wheel("2.15.0", "0.29.2", (13, 2), ("cu130", "cu132")),
    Wheel("2.14.1", "0.29.1", (13, 0), ("cu126", "cu130", "cu132")),
    Wheel("2.14.0", "0.29.0", (13, 0), ("cu126", "cu130", "cu132")),
    Wheel("2.13.0", "0.28.0", (13, 0), ("cu126", "cu130", "cu132")),
    Wheel("2.12.1", "0.27.1", (13, 0), ("cu126", "cu130", "cu132")),
    Wheel("2.12.0", "0.27.0", (13, 0), ("cu126", "cu130", "cu132")),
    Wheel("2.11.0", "0.26.0", (13, 0), ("cu126", "cu128", "cu130")),
    Wheel("2.10.0", "0.25.0", (12, 8), ("cu126", "cu128", "cu130")),
    Wheel("2.9.1", "0.24.1", (12, 8), ("cu126", "cu128", "cu130")),
    Wheel("2.8.0", "0.23.0", (12, 8), ("cu126", "cu128")),
    Wheel("2.7.1", "0.22.1", (12, 6), ("cu118", "cu126", "cu128")),
    Wheel("2.6.0", "0.21.0", (12, 4), ("cu118", "cu124", "cu126")),
)
"""Newest first. A release that is newer than the first row is not chosen by `auto`."""


@dataclass(frozen=True, slots=True)
class TorchChoice:
    """What to install.

    `index` is a folder of PyTorch's wheel index, None for the package index; `fallback`
    is what the package index has instead, should that one not answer.
    """

    requirements: tuple[str, ...]
    index: str | None
    fallback: tuple[str, ...]
    reason: str


def choose(gpus: tuple[Gpu, ...], driver: int | None, wanted: str = "auto") -> TorchChoice:
    """Choose torch and its torchvision for `gpus` under the driver branch `driver`.

    `driver` is the branch that will be there once the steps have run, None for none.
    `wanted` is `auto` or a version. `auto` bounds the versions instead of fixing one,
    so that an older Python still resolves to its newest release, and a release that
    is newer than this table cannot change what a second `up` installs. Raises
    `UsageError` for a version whose builds all need a newer driver or GPU.
    """
    if wanted != "auto":
        return _exactly(gpus, driver, wanted)
    if not gpus or driver is None:
        reason = "no GPU" if not gpus else "no NVIDIA driver: it will train on the CPU"
        return TorchChoice(_upto(WHEELS[0]), None, (), reason)
    if not _limited(gpus, driver):
        return TorchChoice(_upto(WHEELS[0]), None, (), f"driver {driver} runs CUDA 13")
    if driver < OLDEST_DRIVER:
        return TorchChoice(
            _upto(WHEELS[0]), None, (), f"driver {driver} is older than {OLDEST_DRIVER}: no build uses it"
        )
    index = _cuda12(gpus)
    newest = next(wheel for wheel in WHEELS if index in wheel.indexes)
    plain = _plain_cuda12(gpus)
    return TorchChoice(_upto(newest), index, _upto(plain), _why_cuda12(gpus, driver, newest))


def newest_cuda(driver: int | None) -> int | None:
    """Return the major CUDA version a driver branch runs; None for none we have wheels for."""
    if driver is None or driver < OLDEST_DRIVER:
        return None
    return 13 if driver >= CUDA13_DRIVER else 12


def _old_gpu(gpus: tuple[Gpu, ...]) -> bool:
    return any((compute_of(gpu) or TURING) < TURING for gpu in gpus)


def _new_gpu(gpus: tuple[Gpu, ...]) -> bool:
    """Whether one is a Blackwell, for which CUDA 12.8 was the first (its release notes)."""
    return any((compute_of(gpu) or TURING) >= BLACKWELL for gpu in gpus)


def _cuda12(gpus: tuple[Gpu, ...]) -> str:
    return "cu128" if _new_gpu(gpus) and not _old_gpu(gpus) else "cu126"


def _limited(gpus: tuple[Gpu, ...], driver: int) -> bool:
    return driver < CUDA13_DRIVER or _old_gpu(gpus)


def _plain_cuda12(gpus: tuple[Gpu, ...]) -> Wheel:
    # The CUDA 12.8 builds on the package index leave Volta out, the 12.6 ones do not.
    limit = (12, 6) if _old_gpu(gpus) else (12, 9)
    return next(wheel for wheel in WHEELS if wheel.cuda <= limit)


def _why_cuda12(gpus: tuple[Gpu, ...], driver: int, newest: Wheel) -> str:
    if _old_gpu(gpus):
        return f"{gpus[0].name} is older than Turing: the last builds for it are cu126, up to {newest.torch}"
    return f"driver {driver} does not run CUDA 13: {_cuda12(gpus)}, up to {newest.torch}"


def _upto(wheel: Wheel) -> tuple[str, ...]:
    floor = next(row.torchvision for row in WHEELS if row.torch == FLOOR)
    return (f"torch>={FLOOR},<={wheel.torch}", f"torchvision>={floor},<={wheel.torchvision}")


def _exactly(gpus: tuple[Gpu, ...], driver: int | None, wanted: str) -> TorchChoice:
    wheel = next((row for row in WHEELS if row.torch == wanted), None)
    if wheel is None:
        # Not in the table: the resolver pairs it, because torchvision pins its torch exactly.
        return TorchChoice((f"torch=={wanted}", "torchvision"), None, (), f"{wanted}, as asked for")
    exact = (f"torch=={wheel.torch}", f"torchvision=={wheel.torchvision}")
    if not gpus or driver is None or driver < OLDEST_DRIVER or _plain_fits(gpus, driver, wheel):
        return TorchChoice(exact, None, (), f"{wanted}, as asked for")
    index = _cuda12(gpus)
    if index in wheel.indexes:
        return TorchChoice(exact, index, (), f"{wanted}, as asked for; {_why_cuda12(gpus, driver, wheel)}")
    raise UsageError(
        f"no build of PyTorch {wanted} runs on {gpus[0].name} with driver {driver}",
        hint="set `environment.torch` to `auto`",
    )


def _plain_fits(gpus: tuple[Gpu, ...], driver: int, wheel: Wheel) -> bool:
    if _old_gpu(gpus) and wheel.cuda > (12, 6):
        return False
    if _new_gpu(gpus) and wheel.cuda < (12, 8):
        return False
    return wheel.cuda[0] <= (newest_cuda(driver) or 0)
