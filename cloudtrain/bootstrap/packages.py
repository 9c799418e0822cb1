"""Steps that fill the Python environment: PyTorch first, so that nothing else chooses it.

A check reads marks and folder names, not Python: five starts of an interpreter would be
longer than everything else a warm machine does. An `existing` environment on a machine
of the user's own (provider ssh) is never changed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloudtrain.bootstrap.driver import driver_installable, driver_wanted, gpus_meant, uses_gpu
from cloudtrain.bootstrap.environment import (
    Index,
    digest,
    environment_python,
    marks,
    prefix,
    uv_path,
)
from cloudtrain.bootstrap.step import Step
from cloudtrain.catalog import torch
from cloudtrain.catalog.nvidia import driver_major
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.models.url import secrets_in
from cloudtrain.render import render

# cloudpickle is what ultralytics otherwise installs by itself at the first multi-GPU launch.
_TRAINERS: dict[str, tuple[str, ...]] = {
    "yolo": ("ultralytics>=8.3", "tensorboard", "cloudpickle>=3.1.1"),
    "yolov5": ("tensorboard", "setuptools>=70", "cloudpickle>=3.1.1"),
    "script": (),
}


@dataclass(frozen=True, slots=True)
class Target:
    """The environment to install into: its Python, its marks, and the tool that installs."""

    python: str
    marks: str
    env: str
    managed: bool
    index: str | None
    install: str
    uninstall: str

    def exports(self, also: str = "") -> str:
        """Return bash that chooses the package index, and keeps the user's own packages out of our environment.

        In one of conda, ~/.local comes before its own packages. `also` is another index that is asked.
        """
        own = "export PYTHONNOUSERSITE=1\n" if self.managed else ""
        return own + Index(self.index, also).exports


def target(config: Config, facts: Facts, layout: Layout) -> Target:
    """Describe the environment of this config on this machine."""
    python = environment_python(config, facts, layout)
    manager = config.environment.manager
    quoted = shlex.quote(python)
    if manager == "uv" or (manager == "conda" and facts.uv):
        uv = shlex.quote(uv_path(facts))
        install, uninstall = (f"{uv} pip {verb} --python {quoted}" for verb in ("install", "uninstall"))
    else:
        install, uninstall = f"{quoted} -m pip install", f"{quoted} -m pip uninstall -y"
    return Target(
        python,
        marks(config, facts, layout),
        prefix(config, facts, layout),
        manager != "existing",
        config.mirrors.package_index,
        install,
        uninstall,
    )


def frozen(config: Config) -> bool:
    """Whether the environment is the user's own, on a machine of the user's own."""
    return config.environment.manager == "existing" and config.provider == "ssh"


def package_steps(config: Config, facts: Facts, layout: Layout) -> tuple[Step, ...]:
    """Return the steps that install packages, and the GPU's proof.

    Raises `UsageError` for a PyTorch that has no build for this GPU.
    """
    place = target(config, facts, layout)
    packages = config.environment.packages
    found: tuple[Step | None, ...] = (
        _torch(config, facts, place),
        install(place, "trainer", f"what kind {config.train.kind} runs on", _TRAINERS[config.train.kind]),
        _requirements(config, layout, place),
        install(place, "packages", "`environment.packages`", packages),
        _opencv(place) if place.managed else None,
    )
    chosen = () if frozen(config) else tuple(step for step in found if step is not None)
    proof = _gpu(config, facts, place)
    return chosen if proof is None else (*chosen, proof)


def install(place: Target, name: str, reason: str, asked: tuple[str, ...]) -> Step | None:
    """Return the step that installs `asked`, as pip spells it; None for nothing."""
    if not asked:
        return None
    mark, wanted = f"{place.marks}/{name}", digest(*asked)
    return Step(
        name=name,
        reason=reason,
        check=_check(place, mark, wanted, asked),
        apply=render(
            "step-packages.sh.j2",
            index=place.exports(),
            install=place.install,
            words=shlex.join(asked),
            private=any(secrets_in(spec) for spec in asked),
            mark=mark,
            asked=shlex.quote(wanted),
        ),
        needs=("environment", "torch", *(("trainer",) if name != "trainer" else ())),
        lock="env",
    )


def present(place: Target, asked: tuple[str, ...]) -> str:
    """Return bash that exits 0 when every distribution named in `asked` is installed."""
    names = [name for spec in asked if (name := distribution(spec))]
    if not place.managed:
        # Its packages may lie in several folders, so here Python itself must be asked.
        code = "import importlib.metadata as m, sys; [m.version(name) for name in sys.argv[1:]]"
        command = shlex.join((place.python, "-c", code, *names))
        return f"said=$({command} 2>&1) || {{ echo \"${{said##*$'\\n'}}\"; exit 1; }}"
    # Names are spelt with any of -_. in folder names.
    patterns = {name: re.sub(r"[-_.]+", "[-_.]", name) for name in names}
    lines = [
        f"{_has(place, pattern)} || {{ echo '{name} is gone'; exit 1; }}"
        for name, pattern in patterns.items()
    ]
    return "\n".join((_HAS, *lines))


_HAS = """shopt -s nocaseglob
has() { local path; for path in "$@"; do [ ! -e "$path" ] || return 0; done; return 1; }"""


def _has(place: Target, pattern: str) -> str:
    return f"has {shlex.quote(place.env)}/lib/python3*/site-packages/{pattern}-*.dist-info"


def _check(place: Target, mark: str, wanted: str, asked: tuple[str, ...]) -> str:
    if not place.managed:
        return present(place, asked)
    marked = (
        f'[ "$(cat {shlex.quote(mark)} 2>/dev/null)" = {shlex.quote(wanted)} ] || '
        "{ echo 'not yet installed as asked'; exit 1; }"
    )
    return f"{marked}\n{present(place, asked)}"


def distribution(spec: str) -> str | None:
    """Return the name in a requirement; None for an address, a path or an option."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", spec.strip())
    if found is None or re.match(r"[A-Za-z0-9._-]*(\+|://|/|:)", spec.strip()):
        return None
    return found.group()


def _torch(config: Config, facts: Facts, place: Target) -> Step | None:
    if config.environment.torch == "none":
        return None
    choice = torch.choose(facts.gpus, _driver(config, facts), config.environment.torch)
    base = (config.mirrors.torch_index or torch.INDEX).rstrip("/")
    index = f"{base}/{choice.index}" if choice.index else ""
    mark, wanted = f"{place.marks}/torch", digest(*choice.requirements, choice.index or "")
    return Step(
        name="torch",
        reason=f"PyTorch: {choice.reason}",
        check=_check(place, mark, wanted, ("torch", "torchvision")),
        apply=render(
            "step-torch.sh.j2",
            index=place.exports(index),
            torch_index=index,
            torch_host=urlsplit(index).hostname,
            python=place.python,
            install=place.install,
            words=shlex.join(choice.requirements),
            fallback=shlex.join(choice.fallback),
            mark=mark,
            asked=shlex.quote(wanted),
        ),
        needs=("environment",),
        lock="env",
        timeout_s=2400,
    )


def _driver(config: Config, facts: Facts) -> int | None:
    """Return the driver branch that will be there once the steps have run."""
    plan = driver_wanted(config, facts)
    if plan is not None and driver_installable(config, facts):
        return plan.branch
    return driver_major(facts.gpus)


def _requirements(config: Config, layout: Layout, place: Target) -> Step | None:
    named = config.environment.requirements
    if named is None and config.train.kind != "yolov5":
        return None
    path = f"{layout.project}/{named or 'requirements.txt'}"
    file, mark = shlex.quote(path), shlex.quote(f"{place.marks}/requirements")
    # A yolov5 checkout may do without one; a file that the config names may not.
    absent = "exit 1" if named else "exit 0"
    return Step(
        name="requirements",
        reason=f"`{named or 'requirements.txt'}` of the project",
        check=f"[ -f {file} ] || {{ echo 'it is not in the project'; {absent}; }}\n"
        f'[ "$(cat {mark} 2>/dev/null)" = "$(sha256sum <{file} | cut -c1-32)" ] || '
        "{ echo 'it is new or has changed'; exit 1; }",
        apply=render(
            "step-requirements.sh.j2",
            index=place.exports(),
            install=place.install,
            path=path,
            mark=f"{place.marks}/requirements",
        ),
        needs=("environment", "torch", "trainer"),
        lock="env",
        waits_for_project=True,
    )


def _opencv(place: Target) -> Step:
    pending = f"{place.env}/opencv-pending"
    return Step(
        name="opencv",
        # A bare server has no libGL; its apt package brings a graphics stack and needs root,
        # the headless build of the same version needs neither and trains the same.
        reason="opencv-python needs libGL.so.1, which a bare server lacks",
        check=f"[ ! -e {shlex.quote(pending)} ] || {{ echo 'it was interrupted'; exit 1; }}\n"
        'PATH="$PATH:/usr/sbin:/sbin" ldconfig -p | grep -q "libGL\\.so\\.1" && exit 0\n'
        f"{_HAS}\n! {_has(place, 'opencv_python')}",
        apply=render(
            "step-opencv.sh.j2",
            pending=pending,
            index=place.exports(),
            env=place.env,
            install=place.install,
            uninstall=place.uninstall,
        ),
        needs=("environment", "torch", "trainer", "requirements", "packages"),
        lock="env",
        timeout_s=600,
    )


def _gpu(config: Config, facts: Facts, place: Target) -> Step | None:
    if not facts.gpus or not uses_gpu(config):
        return None
    mark = f"{place.marks}/gpu"
    # A proof is of one driver and one PyTorch; another of either needs another proof.
    of = f"cat /proc/driver/nvidia/version {shlex.quote(f'{place.marks}/torch')} 2>/dev/null | sha256sum"
    return Step(
        name="gpu",
        reason="a product computed on the GPU proves driver and PyTorch together",
        check=f'[ "$(cat {shlex.quote(mark)} 2>/dev/null)" = "$({of})" ]',
        apply=render(
            "step-gpu.sh.j2",
            command=f"{'PYTHONNOUSERSITE=1 ' if place.managed else ''}{shlex.quote(place.python)}",
            engine=False,
            mark=mark,
            of=of,
            container=facts.container,
            meant=gpus_meant(config),
        ),
        needs=("driver", "environment", "torch", "trainer", "requirements", "packages", "opencv"),
        lock="env",
        timeout_s=300,
    )
