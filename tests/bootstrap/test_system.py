"""The system's steps, run on copies of the files that they read and write."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloudtrain.bootstrap import steps
from cloudtrain.models.config import Config, Cuda
from cloudtrain.render import render
from tests.bootstrap.cases import LAYOUT, MACHINES

OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build"
    "  (dvs-builder@U22-I3-AE18-23-3)  Tue Sep 23 10:11:16 UTC 2025\n"
)
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun May 12 19:39:15 UTC 2024\n"


@pytest.mark.parametrize(
    ("module", "library", "said"),
    [
        (OPEN, "580.95.05", ""),
        (CLOSED.format("535.183.01"), "535.183.01", ""),
        (CLOSED.format("535.183.01"), "580.95.05", "kernel module 535.183.01, library 580.95.05"),
        (CLOSED.format("440.33.01"), "440.33.01", "driver 440.33.01 is older than 525"),
        (OPEN, None, "the driver has no libnvidia-ml.so.1"),
        (None, "580.95.05", "no NVIDIA kernel module is loaded"),
    ],
)
def test_the_driver_is_checked_by_its_files(
    module: str | None, library: str | None, said: str, tmp_path: Path
) -> None:
    if module is not None:
        (tmp_path / "version").write_text(module)
    cache = ""
    if library is not None:
        (tmp_path / f"libnvidia-ml.so.{library}").touch()
        (tmp_path / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{library}")
        cache = f"\\tlibnvidia-ml.so.1 (libc6,x86-64) => {tmp_path}/libnvidia-ml.so.1\\n"
    (tmp_path / "ldconfig").write_text(f"#!/bin/sh\nprintf '{cache}'\n")
    (tmp_path / "ldconfig").chmod(0o755)
    check = render("step-driver-check.sh.j2", oldest=525)
    done = subprocess.run(
        ["bash", "-c", check.replace("/proc/driver/nvidia/version", str(tmp_path / "version"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert (done.stdout.strip(), done.returncode) == (said, 1 if said else 0)


def test_an_apt_mirror_takes_the_place_of_the_archive_once(tmp_path: Path) -> None:
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    ubuntu = (
        "Types: deb\nURIs: http://us-east-1.ec2.archive.ubuntu.com/ubuntu/\nSuites: noble\n\n"
        "Types: deb\nURIs: http://security.ubuntu.com/ubuntu\nSuites: noble-security\n"
    )
    (lists / "ubuntu.sources").write_text(ubuntu)
    (tmp_path / "sources.list").write_text(
        "deb [arch=amd64] http://10.0.0.1:8080/proxy bookworm main contrib\n"
        "deb http://10.0.0.1/debian-security bookworm-security main\n"
        "deb https://docker.example.org/linux/debian bookworm stable\n"
    )
    script = render("step-apt-mirror.sh.j2", mirror="http://m.example.org/a&b").replace(
        "/etc/apt", str(tmp_path)
    )
    for _ in range(2):
        subprocess.run(["bash", "-c", script], check=True)
        assert (tmp_path / "sources.list").read_text() == (
            "deb [arch=amd64] http://m.example.org/a&b bookworm main contrib\n"
            "deb http://10.0.0.1/debian-security bookworm-security main\n"
            "deb https://docker.example.org/linux/debian bookworm stable\n"
        )
        now = (lists / "ubuntu.sources").read_text()
        assert now.count("URIs: http://m.example.org/a&b") == 2
        assert "ubuntu.com" not in now
    assert (lists / "ubuntu.sources.before-cloudtrain").read_text() == ubuntu


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            'LANG="C"\nPATH="/usr/bin:/usr/games"\n',
            'LANG="C"\nPATH="/usr/local/cuda-12.8/bin:/usr/bin:/usr/games"\nCUDA_HOME=/usr/local/cuda-12.8\n',
        ),
        (
            "PATH=/usr/local/cuda-12.6/bin:/usr/bin\nCUDA_HOME=/usr/local/cuda-12.6\n",
            'PATH="/usr/local/cuda-12.8/bin:/usr/bin"\nCUDA_HOME=/usr/local/cuda-12.8\n',
        ),
        (
            None,
            'PATH="/usr/local/cuda-12.8/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n'  # noqa: ISC004
            "CUDA_HOME=/usr/local/cuda-12.8\n",
        ),
    ],
)
def test_cuda_is_put_first_in_every_session_s_path_once(
    before: str | None, after: str, tmp_path: Path
) -> None:
    config = Config(cuda=Cuda(toolkit="12.8"))
    step = next(step for step in steps(config, MACHINES["t4"], LAYOUT) if step.name == "cuda")
    setting = step.apply[step.apply.index("# A profile is read") :].replace("/etc", str(tmp_path))
    if before is not None:
        (tmp_path / "environment").write_text(before)
    for _ in range(2):
        subprocess.run(["bash", "-euo", "pipefail", "-c", setting], check=True)
        assert (tmp_path / "environment").read_text() == after
