"""The PyTorch that fits: one row a machine."""

from __future__ import annotations

import itertools

import pytest

from cloudtrain.catalog.nvidia import PCI, compute_of, driver_major, driver_plan, from_pci
from cloudtrain.catalog.torch import WHEELS, choose
from cloudtrain.errors import UsageError
from cloudtrain.models.machine import Gpu
from tests.bootstrap.cases import MACHINES

T4 = (Gpu("Tesla T4", 15360, "580.95.05", (7, 5)),)
RTX_5090 = (Gpu("NVIDIA GeForce RTX 5090", 32607, "570.86.10", (12, 0)),)
V100 = (Gpu("Tesla V100-SXM2-16GB", 16384, "580.95.05", (7, 0)),)


@pytest.mark.parametrize(
    ("gpus", "driver", "newest", "index", "fallback"),
    [
        ((), None, "2.15.0", None, None),
        (T4, 580, "2.15.0", None, None),
        (T4, 595, "2.15.0", None, None),
        (T4, None, "2.15.0", None, None),
        (T4, 450, "2.15.0", None, None),
        (T4, 525, "2.14.1", "cu126", "2.10.0"),
        (T4, 570, "2.14.1", "cu126", "2.10.0"),
        (V100, 580, "2.14.1", "cu126", "2.7.1"),
        (V100, 535, "2.14.1", "cu126", "2.7.1"),
        (T4 + V100, 580, "2.14.1", "cu126", "2.7.1"),
        (RTX_5090, 580, "2.15.0", None, None),
        (RTX_5090, 570, "2.11.0", "cu128", "2.10.0"),
    ],
)
def test_auto(
    gpus: tuple[Gpu, ...], driver: int | None, newest: str, index: str | None, fallback: str | None
) -> None:
    choice = choose(gpus, driver)
    assert choice.requirements[0] == f"torch>=2.6.0,<={newest}"
    assert choice.index == index
    assert (choice.fallback[0] if choice.fallback else None) == (fallback and f"torch>=2.6.0,<={fallback}")
    assert choice.reason


def test_a_v100_is_told_why() -> None:
    assert "V100" in choose(V100, 580).reason
    assert "older than Turing" in choose(V100, 580).reason


@pytest.mark.parametrize(
    ("gpus", "driver", "wanted", "index"),
    [
        ((), None, "2.15.0", None),
        (T4, 580, "2.15.0", None),
        (T4, 535, "2.10.0", None),
        (T4, 535, "2.13.0", "cu126"),
        (V100, 580, "2.7.1", None),
        (V100, 580, "2.14.1", "cu126"),
        (RTX_5090, 570, "2.7.1", "cu128"),
        (RTX_5090, 570, "2.10.0", None),
    ],
)
def test_a_version_that_was_asked_for(
    gpus: tuple[Gpu, ...], driver: int | None, wanted: str, index: str | None
) -> None:
    choice = choose(gpus, driver, wanted)
    assert choice.requirements[0] == f"torch=={wanted}"
    assert choice.index == index


@pytest.mark.parametrize(("gpus", "driver"), [(T4, 535), (V100, 580), (RTX_5090, 570)])
def test_a_version_without_a_fitting_build_is_refused(gpus: tuple[Gpu, ...], driver: int) -> None:
    with pytest.raises(UsageError, match=r"no build of PyTorch 2\.15\.0"):
        choose(gpus, driver, "2.15.0")


def test_an_unknown_version_is_paired_by_the_resolver() -> None:
    assert choose(T4, 580, "2.16.0").requirements == ("torch==2.16.0", "torchvision")


def test_the_table_is_newest_first() -> None:
    versions = [tuple(map(int, wheel.torch.split("."))) for wheel in WHEELS]
    assert all(newer > older for newer, older in itertools.pairwise(versions))


@pytest.mark.parametrize(
    ("machine", "flavour"),
    [
        ("ubuntu-22.04-no-gpu", None),
        ("t4", None),
        ("v100", None),
        ("a10g", None),
        ("old-driver", "580-server-open"),
        ("ubuntu-24.04-bare", "580-server-open"),
        ("v100-no-driver", "580-server"),
    ],
)
def test_driver_plan(machine: str, flavour: str | None) -> None:
    plan = driver_plan(MACHINES[machine].gpus)
    assert (plan.flavour if plan else None) == flavour


def test_pci_ids() -> None:
    assert compute_of(from_pci("1EB8")) == (7, 5)
    assert from_pci("ffff").name == "NVIDIA GPU 10de:ffff"
    assert compute_of(from_pci("ffff")) is None


@pytest.mark.parametrize(
    ("device", "compute"),
    [
        ("1180", (3, 0)),  # GTX 680
        ("17c8", (5, 0)),  # GTX 980 Ti, by its range alone
        ("15f7", (6, 0)),  # P100 12 GB
        ("1bb3", (6, 1)),  # P4
        ("1b06", (6, 1)),  # GTX 1080 Ti
        ("1d81", (7, 0)),  # Titan V
        ("1df6", (7, 0)),  # V100S
    ],
)
def test_an_old_gpu_that_no_table_names_is_told_by_its_number(device: str, compute: tuple[int, int]) -> None:
    found = compute_of(from_pci(device))
    assert found is not None
    assert found[0] == compute[0]
    plan = driver_plan((from_pci(device),))
    assert (plan is None) == (compute < (5, 0))
    assert plan is None or not plan.open


@pytest.mark.parametrize("device", ["1e04", "2204", "2684", "2b85"])  # RTX 2080 Ti, 3090, 4090, 5090
def test_a_newer_one_gets_the_open_modules(device: str) -> None:
    plan = driver_plan((from_pci(device),))
    assert plan is not None
    assert plan.open
    assert driver_major((Gpu("x"),)) is None
    assert all(len(device) == 4 and device == device.lower() for device in PCI)
