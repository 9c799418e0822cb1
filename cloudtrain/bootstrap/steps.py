"""Which steps a machine needs considered. Pure: config and facts in, steps out."""

from __future__ import annotations

from cloudtrain.bootstrap.driver import driver_steps
from cloudtrain.bootstrap.environment import environment_steps
from cloudtrain.bootstrap.image import image_steps
from cloudtrain.bootstrap.packages import package_steps
from cloudtrain.bootstrap.software import software_steps
from cloudtrain.bootstrap.step import Step
from cloudtrain.bootstrap.system import system_steps
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout

NAMES = (
    "cloud-init", "apt-mirror", "base", "driver", "cuda", "docker", "toolkit", "uv", "miniconda", "environment", "torch",
    "trainer", "requirements", "packages", "opencv", "image", "gpu",
)  # fmt: skip
"""Every step there is, in the order in which they are listed."""


def steps(config: Config, facts: Facts, layout: Layout) -> tuple[Step, ...]:
    """Return the steps for this machine, satisfied or not, in the order of `NAMES`.

    A step that could never apply is left out: no driver without a GPU, no cloud-init
    where there is none. Raises `UsageError` for what cannot work on this machine at all,
    such as a PyTorch version that has no build for its GPU.
    """
    system = (
        *system_steps(config, facts, layout),
        *driver_steps(config, facts),
        *software_steps(config, facts),
    )
    if config.runtime == "docker":
        return (*system, *image_steps(config, facts, layout))
    return (
        *system,
        *environment_steps(config, facts, layout),
        *package_steps(config, facts, layout),
    )
