"""The step that brings the NVIDIA driver, and where it is had from.

Ubuntu's own archive first: its kernel modules are built and signed, so no compiler, no headers
and no trouble with Secure Boot. NVIDIA's archive where Ubuntu's has none: its modules are
compiled on the machine. NVIDIA's installer ("runfile") only on request: apt knows nothing of its
files. Never two of them on one machine: mixing sources is a classic breakage.
"""

from __future__ import annotations

import re
from typing import Literal

from cloudtrain.bootstrap.step import Step
from cloudtrain.catalog.nvidia import OLDEST_DRIVER, RUNFILE, DriverPlan, driver_plan
from cloudtrain.models.config import Config
from cloudtrain.models.gpus import numbered
from cloudtrain.models.machine import Facts
from cloudtrain.render import render

UBUNTU = ("22.04", "24.04")
"""Releases whose archive has the signed server modules that we name."""

CUDA_REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos"
"""Folders by release and architecture (NVIDIA's CUDA installation guide for Linux)."""

DEBIAN = "http://deb.debian.org/debian"
"""Debian's archive; apt checks it by its key."""

GUIDE = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"

Source = Literal["ubuntu", "nvidia", "runfile"]
_FOLDERS = {
    ("ubuntu", "22.04"): "ubuntu2204",
    ("ubuntu", "24.04"): "ubuntu2404",
    ("debian", "12"): "debian12",
}
"""Systems for which NVIDIA's archive has drivers that install without a hand (same guide)."""


def repository(config: Config, facts: Facts) -> str | None:
    """Return the folder of NVIDIA's archive for this system, None when it has none."""
    folder = _FOLDERS.get((facts.os_id, facts.os_version))
    if folder is None or facts.arch != "x86_64":
        return None
    return f"{(config.mirrors.cuda or CUDA_REPOSITORY).rstrip('/')}/{folder}/{facts.arch}"


def driver_wanted(config: Config, facts: Facts) -> DriverPlan | None:
    """Return the driver that this machine should get, None when that is not ours to do.

    In a container the driver is its host's, under WSL it is Windows'.
    """
    if facts.container or facts.wsl or config.cuda.driver == "none":
        return None
    return driver_plan(facts.gpus)


def uses_gpu(config: Config) -> bool:
    """Whether the training means to use a GPU where there is one."""
    return str(config.train.args.get("device", "")) != "cpu" and config.environment.torch != "none"


def gpus_meant(config: Config) -> str:
    """Return the numbers of the GPUs that the training is to use, with spaces between; empty for all."""
    device = str(config.train.args.get("device", ""))
    named = [] if "-" in device else re.findall(r"\d+", device)  # -1 is whichever is idle
    return " ".join(str(number) for number in numbered(config.train.gpus) or named)


def driver_installable(config: Config, facts: Facts) -> bool:
    """Whether the driver step can do its work here at all."""
    return facts.privileged and _source(config, facts) is not None


def driver_steps(config: Config, facts: Facts) -> tuple[Step, ...]:
    """Return the driver step where a GPU is to be used, and its driver is missing or too old."""
    plan = driver_wanted(config, facts)
    if plan is None or not facts.apt or not uses_gpu(config):
        return ()
    source = _source(config, facts)
    step = Step(
        name="driver",
        reason=plan.reason,
        check=render("step-driver-check.sh.j2", oldest=OLDEST_DRIVER),
        apply=_apply(config, facts, plan, source),
        needs=("base",),
        root=True,
        lock="apt",
        shared=True,
        # NVIDIA's modules are compiled here, for minutes on a small machine.
        timeout_s=1500,
        by_hand=_by_hand(plan, source, facts),
    )
    return (step,)


def _source(config: Config, facts: Facts) -> Source | None:
    """Return where the driver is had from on this system, None for nowhere that we know."""
    signed = facts.os_id == "ubuntu" and facts.os_version in UBUNTU
    there = repository(config, facts) is not None
    match config.cuda.driver:
        case "auto":
            return "ubuntu" if signed else "nvidia" if there else None
        case "ubuntu":
            return "ubuntu" if signed else None
        case "nvidia":
            return "nvidia" if there else None
        case "runfile":
            return "runfile" if facts.apt and facts.arch == "x86_64" else None
        case "none":
            return None


def _apply(config: Config, facts: Facts, plan: DriverPlan, source: Source | None) -> str:
    return render(
        "step-driver.sh.j2",
        source=source,
        ours=config.provider != "ssh",
        # Where Ubuntu has no module for the running kernel, NVIDIA's archive compiles one.
        repository=repository(config, facts) if source == "nvidia" or config.cuda.driver == "auto" else None,
        flavour=plan.flavour,
        branch=plan.branch,
        open=plan.open,
        runfile=RUNFILE,
        folder=(config.mirrors.driver_runfile or RUNFILE.folder).rstrip("/"),
        contrib=f"deb {config.mirrors.apt or DEBIAN} bookworm contrib" if facts.os_id == "debian" else "",
        system=f"{facts.os_id} {facts.os_version}",
        installed=_mismatched(facts),
        oldest=OLDEST_DRIVER,
    )


def _mismatched(facts: Facts) -> bool:
    """Whether the installed driver is another version than the kernel module that is loaded."""
    return "mismatch" in (facts.nvidia_smi_error or "")


def _by_hand(plan: DriverPlan, source: Source | None, facts: Facts) -> str:
    if _mismatched(facts):
        return "sudo reboot  # reboot the machine: its NVIDIA driver was renewed, the module of before is still loaded"
    if source != "ubuntu":
        return f"install NVIDIA driver {plan.branch} or newer, by {GUIDE}"
    dash_open = "-open" if plan.open else ""
    packages = (
        f"nvidia-headless-no-dkms-{plan.flavour} nvidia-utils-{plan.branch}-server "
        f"linux-modules-nvidia-{plan.branch}-server{dash_open}-$(uname -r)"
    )
    # Without -y: apt says what it would remove for it, such as the driver of somebody's desktop.
    return f"sudo apt-get update && sudo apt-get install --no-install-recommends {packages}"
