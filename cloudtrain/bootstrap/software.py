"""Steps that bring what is only installed on request: Docker with NVIDIA's toolkit, and CUDA.

Docker is the distribution's own package: it is old enough to work and new enough for every
image, and brings no archive of a third party. What only NVIDIA has comes from NVIDIA's
archive, which is kept from offering a driver: two sources of one are a classic breakage.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from cloudtrain.bootstrap.driver import UBUNTU, repository, uses_gpu
from cloudtrain.bootstrap.step import Step
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.render import render

TOOLKIT_REPOSITORY = "https://nvidia.github.io/libnvidia-container"
"""NVIDIA's installation guide of its container toolkit, section apt."""
_UNTOLD = "/run/cloudtrain-docker-untold"
INSIDE = (
    "this machine is a container itself and can have no Docker engine: "
    "set runtime: host, or rent a machine that is none"
)


def software_steps(config: Config, facts: Facts) -> tuple[Step, ...]:
    """Return the steps for a container engine and for the CUDA toolkit, where they were asked for."""
    found = (_cuda(config, facts), _docker(config, facts), _toolkit(config, facts))
    return tuple(step for step in found if step is not None)


def _docker(config: Config, facts: Facts) -> Step | None:
    if config.runtime != "docker":
        return None
    return Step(
        name="docker",
        reason="`runtime: docker` needs a Docker engine",
        check="command -v docker >/dev/null || { echo 'there is no Docker engine'; exit 1; }",
        apply=render("step-docker.sh.j2", refusal=_no_engine(facts)),
        needs=("base",),
        root=True,
        lock="apt",
        timeout_s=900,
        required=facts.docker is None,
        by_hand="sudo apt-get update && sudo apt-get install -y docker.io",
    )


def _no_engine(facts: Facts) -> str:
    if facts.container:
        return INSIDE
    if not facts.apt:
        return f"no Docker package is known for {facts.os_id} {facts.os_version}: install a Docker engine"
    return ""


def _toolkit(config: Config, facts: Facts) -> Step | None:
    """Return the step for NVIDIA's container toolkit; without a GPU there is nothing to hand in."""
    if config.runtime != "docker" or not facts.gpus or not uses_gpu(config) or facts.container:
        return None
    return Step(
        name="toolkit",
        reason="a container sees a GPU only through the NVIDIA container toolkit",
        # An engine hands a GPU in by the hook or as a runtime, whoever told it; the GPU's proof shows that it does.
        check=render("step-toolkit-check.sh.j2", untold=_UNTOLD),
        apply=render(
            "step-toolkit.sh.j2",
            repository=(config.mirrors.container_toolkit or TOOLKIT_REPOSITORY).rstrip("/"),
            apt=facts.apt,
            untold=_UNTOLD,
        ),
        needs=("base", "driver", "docker"),
        root=True,
        lock="apt",
        timeout_s=900,
    )


def _cuda(config: Config, facts: Facts) -> Step | None:
    version = config.cuda.toolkit
    if version is None:
        return None
    folder = f"/usr/local/cuda-{version}"
    archive = repository(config, facts) if facts.os_version in UBUNTU else None
    return Step(
        name="cuda",
        reason=f"`cuda.toolkit` is {version}",
        check=f"[ -x {folder}/bin/nvcc ] || {{ echo 'there is no nvcc {version}'; exit 1; }}\n"
        f"grep -qs 'CUDA_HOME={folder}' /etc/environment || "
        "{ echo 'a shell that is not interactive does not find it'; exit 1; }",
        apply=render(
            "step-cuda.sh.j2",
            system=f"{facts.os_id} {facts.os_version} {facts.arch}",
            repository=archive,
            archive=urlsplit(archive or "").hostname,
            package=f"cuda-toolkit-{version.replace('.', '-')}",
            folder=folder,
        ),
        needs=("base", "driver"),
        root=True,
        lock="apt",
        timeout_s=2400,
    )
