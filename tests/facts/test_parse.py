"""One answer of a machine a file; what must be read from it beside its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.errors import ConnectError
from cloudtrain.facts import parse
from cloudtrain.models.machine import Facts, Gpu

DATA = Path(__file__).parent / "data"
T4 = Gpu("Tesla T4", 15360, "580.95.05", (7, 5))

EXPECTED: dict[str, dict[str, object]] = {
    "ubuntu-22.04-no-gpu": {
        "os_id": "ubuntu", "os_version": "22.04", "kernel": "6.8.0-1036-aws", "arch": "x86_64", "cpus": 4,
        "memory_mib": 15642, "shm_mib": 7821, "disk_free_mib": 53636, "user": "ubuntu", "home": "/home/ubuntu",
        "root": False, "sudo": True, "apt": True, "systemd": True, "cloud_init": True, "container": False,
        "wsl": False, "screen": "/usr/bin/screen", "uv": None, "conda": None, "docker": None,
        "python3": "/usr/bin/python3", "python3_version": "3.10.12", "gpus": (), "nvidia_smi_error": None,
        "privileged": True,
    },
    "ubuntu-24.04-bare": {"gpus": (Gpu("Tesla T4"),), "nvidia_smi_error": "nvidia-smi is not installed"},
    "debian-12-no-root": {
        "os_id": "debian", "os_version": "12", "privileged": False, "screen": None, "git": None,
        "uv": "/home/me/.local/bin/uv", "cloud_init": False,
    },
    "t4": {"gpus": (T4,), "nvidia_smi_error": None},
    "a10g": {"gpus": (Gpu("NVIDIA A10G", 23028, "535.183.01", (8, 6)),)},
    "v100": {"gpus": (Gpu("Tesla V100-SXM2-16GB", 16384, "580.95.05", (7, 0)),), "cpus": 8},
    "t4-four": {"gpus": (T4, T4, T4, T4), "cpus": 48},
    "old-driver": {"gpus": (Gpu("Tesla T4", 15109, "440.33.01", None),)},
    "driver-library-mismatch": {
        "gpus": (Gpu("Tesla T4"),),
        "nvidia_smi_error": "Failed to initialize NVML: Driver/library version mismatch",
    },
    "v100-no-driver": {"gpus": (Gpu("Tesla V100-SXM2-16GB"),)},
    "wsl": {"wsl": True, "gpus": (Gpu("NVIDIA GeForce RTX 4070 Laptop GPU", 8188, "581.29", (8, 9)),)},
    "container-without-toolkit": {
        "container": True, "root": True, "privileged": True, "shm_mib": 64, "systemd": False, "rsync": None,
        "conda": "/opt/conda/bin/conda", "gpus": (Gpu("NVIDIA A10G"),),
        "nvidia_smi_error": "nvidia-smi is not installed",
    },
    "noisy-shell": {"home": "/home/ubuntu", "gpus": (Gpu("Tesla T4", 15360, None, (7, 5)),)},
}  # fmt: skip


def read(name: str) -> Facts:
    return parse((DATA / f"{name}.txt").read_text())


def test_every_file_is_expected() -> None:
    assert {path.stem for path in DATA.glob("*.txt")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_reads(name: str) -> None:
    found = read(name)
    assert {key: getattr(found, key) for key in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", ["t4", "noisy-shell"])
def test_carriage_returns_do_not_matter(name: str) -> None:
    text = (DATA / f"{name}.txt").read_text()
    assert parse(text.replace("\n", "\r\n")) == parse(text)


@pytest.mark.parametrize("keep", [0, 1, 100, -7])
def test_half_an_answer_is_refused(keep: int) -> None:
    text = (DATA / "t4.txt").read_text()
    with pytest.raises(ConnectError, match="not whole"):
        parse(text[:keep])
