"""Steps of `runtime: docker`: the image, and the GPU's proof inside it.

An image is the whole Python environment, so no other step makes one. The engine itself, and
NVIDIA's toolkit for it, are steps of the system.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from cloudtrain.bootstrap.driver import gpus_meant, uses_gpu
from cloudtrain.bootstrap.step import Step
from cloudtrain.models import container
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.render import render


def image_steps(config: Config, facts: Facts, layout: Layout) -> tuple[Step, ...]:
    """Return the step that pulls or builds the image, and the GPU's proof where there is one."""
    proof = _gpu(config, facts, layout)
    return (_image(config, layout), *((proof,) if proof else ()))


def _image(config: Config, layout: Layout) -> Step:
    name, dockerfile = container.image_of(config, layout), config.docker.dockerfile
    path = f"{layout.project}/{dockerfile}" if dockerfile else ""
    values = {
        "image": name,
        "dockerfile": path,
        "context": str(PurePosixPath(path).parent) if path else "",
        "label": f"{container.LABEL}={PurePosixPath(layout.root).name}",
    }
    return Step(
        name="image",
        reason=f"the image is built from `{dockerfile}`" if dockerfile else f"the image `{name}`",
        check=render("step-image-check.sh.j2", **values),
        apply=render("step-image.sh.j2", **values),
        needs=("base", "docker", "toolkit"),
        lock="env",
        timeout_s=3600,
        waits_for_project=bool(dockerfile),
    )


def _gpu(config: Config, facts: Facts, layout: Layout) -> Step | None:
    if not facts.gpus or not uses_gpu(config):
        return None
    name = container.image_of(config, layout)
    mark = f"{layout.root}/marks/gpu"
    # A proof is of one driver and one image; another of either needs another proof.
    of = f"{{ cat /proc/driver/nvidia/version; docker image inspect --format '{{{{.Id}}}}' {shlex.quote(name)}; }} 2>/dev/null | sha256sum"
    words = ["--rm", "--interactive", "--gpus", "all", name, config.docker.python]
    return Step(
        name="gpu",
        reason="a product computed on the GPU inside the container proves driver, toolkit and PyTorch",
        check=f'[ "$(cat {shlex.quote(mark)} 2>/dev/null)" = "$({of})" ]',
        apply=render(
            "step-gpu.sh.j2",
            command=f"engine run {shlex.join(words)}",
            engine=True,
            mark=mark,
            of=of,
            container=True,
            meant=gpus_meant(config),
        ),
        needs=("driver", "docker", "toolkit", "image"),
        lock="env",
        timeout_s=300,
    )
