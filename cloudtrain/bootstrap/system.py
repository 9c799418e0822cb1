"""Steps that change the system and so need root: apt's packages and the NVIDIA driver.

As little as possible: every package is a download, a trigger and a thing to break. The
driver comes from Ubuntu's own archive, whose kernel modules are built and signed: no
compiler, no headers, and mixing it with NVIDIA's repository is a classic breakage.
"""

from __future__ import annotations

import shlex

from cloudtrain.bootstrap.step import Step
from cloudtrain.catalog.nvidia import OLDEST_DRIVER, DriverPlan, driver_plan
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.render import render

UBUNTU = ("22.04", "24.04")
"""Releases whose archive has the signed server modules that we name."""

_PACKAGES: dict[str, tuple[str, str]] = {
    "screen": ("screen", "command -v screen"),
    "rsync": ("rsync", "command -v rsync"),
    "git": ("git", "command -v git"),
    "curl": ("curl", "command -v curl"),
    "bzip2": ("bzip2", "command -v bzip2"),
    "certificates": ("ca-certificates", "[ -s /etc/ssl/certs/ca-certificates.crt ]"),
    "python3": ("python3", "command -v python3"),
    "venv": ("python3-venv", "python3 -ISc 'import ensurepip'"),
}
"""What may be needed: the apt package, and how to see that it is there already."""

# An installation that was killed has its programs in place already, and not set up.
_WHOLE = """
shopt -s nullglob
journal=(/var/lib/dpkg/updates/[0-9]*)
if [ "${#journal[@]}" -gt 0 ] ||
  grep -qE '^Status: [a-z]+ [a-z]+ (unpacked|half-configured|half-installed)$' /var/lib/dpkg/status; then
  echo 'an installation was interrupted'
  exit 1
fi"""

_ALWAYS = ("screen", "rsync")
_VITAL = ("git", "curl", "python3")
"""Without these nothing goes on; without screen a session is detached all the same, and
without rsync files come as a tar stream."""
_FOR_MANAGER = {
    "conda": ("curl", "bzip2", "certificates"),
    "uv": ("certificates", "python3", "venv"),
    "venv": ("certificates", "python3", "venv"),
    "existing": (),
}


def system_steps(config: Config, facts: Facts, layout: Layout) -> tuple[Step, ...]:
    """Return the system steps for this machine; those without a use on it are left out."""
    del layout  # the system is not ours: nothing of it lies in the run's folder
    found = (_cloud_init(facts), _apt_mirror(config, facts), _base(config, facts), _driver(config, facts))
    return tuple(step for step in found if step is not None)


def base_needs(config: Config, facts: Facts) -> tuple[str, ...]:
    """Return which rows of the package table this config needs on this machine."""
    manager = "existing" if config.runtime == "docker" else config.environment.manager
    tool_there = (manager == "uv" and facts.uv) or (manager == "conda" and facts.conda)
    names = [*_ALWAYS, *(() if tool_there else _FOR_MANAGER[manager])]
    if config.runtime == "docker":
        names.append("python3")  # guard and watcher run outside of the container
    if config.project.git:
        names += ["git", "certificates"]
    if config.dataset.source:
        names += ["curl", "certificates"]
    return tuple(dict.fromkeys(names))


def driver_wanted(facts: Facts) -> DriverPlan | None:
    """Return the driver that this machine should get, None when that is not ours to do.

    In a container the driver is its host's, under WSL it is Windows'.
    """
    if facts.container or facts.wsl:
        return None
    return driver_plan(facts.gpus)


def uses_gpu(config: Config) -> bool:
    """Whether the training means to use a GPU where there is one."""
    return str(config.train.args.get("device", "")) != "cpu" and config.environment.torch != "none"


def driver_installable(facts: Facts) -> bool:
    """Whether the driver step can do its work here at all."""
    return facts.privileged and facts.os_id == "ubuntu" and facts.os_version in UBUNTU


def _cloud_init(facts: Facts) -> Step | None:
    if not facts.cloud_init:
        return None
    return Step(
        name="cloud-init",
        reason="cloud-init is still at work, and apt is in its hands",
        # By its files: asking `cloud-init status` costs a third of a second.
        check="[ -e /run/cloud-init/result.json ] || [ -e /run/cloud-init/disabled ]",
        apply=render("step-cloud-init.sh.j2"),
        timeout_s=900,
    )


def _apt_mirror(config: Config, facts: Facts) -> Step | None:
    mirror = config.mirrors.apt
    if not mirror or not facts.apt:
        return None
    return Step(
        name="apt-mirror",
        reason="apt is told to use `mirrors.apt`",
        check=f"cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list "
        f"/etc/apt/sources.list.d/*.sources 2>/dev/null | grep -qF -- {shlex.quote(mirror.rstrip('/'))}",
        apply=render("step-apt-mirror.sh.j2", mirror=mirror.rstrip("/")),
        needs=("cloud-init",),
        root=True,
        lock="apt",
        shared=True,
        timeout_s=60,
    )


def _base(config: Config, facts: Facts) -> Step:
    names = base_needs(config, facts)
    rows = [_PACKAGES[name] for name in names]
    packages = [package for package, _ in rows]
    missing = "\n".join(f"{{ {check}; }} >/dev/null 2>&1 || missing+=({name})" for name, check in rows)
    return Step(
        name="base",
        reason="programs that training and transfer need",
        check=f"missing=()\n{missing}\n"
        '[ -z "${missing[*]}" ] || { echo "missing: ${missing[*]}"; exit 1; }'
        + (_WHOLE if facts.apt else ""),
        apply=render("step-base.sh.j2", packages=packages),
        needs=("cloud-init", "apt-mirror"),
        root=True,
        lock="apt",
        shared=True,
        timeout_s=1500,
        # The others make a step fail by itself where they are truly missed.
        required=any(name in names and getattr(facts, name) is None for name in _VITAL),
        by_hand=f"sudo apt-get update && sudo apt-get install -y {shlex.join(packages)}",
    )


def _driver(config: Config, facts: Facts) -> Step | None:
    plan = driver_wanted(facts)
    if plan is None or not facts.apt or not uses_gpu(config):
        return None
    apply = render(
        "step-driver.sh.j2",
        flavour=plan.flavour,
        branch=plan.branch,
        known=facts.os_id == "ubuntu" and facts.os_version in UBUNTU,
        system=f"{facts.os_id} {facts.os_version}",
        installed="mismatch" in (facts.nvidia_smi_error or ""),
    )
    return Step(
        name="driver",
        reason=plan.reason,
        check=render("step-driver-check.sh.j2", oldest=OLDEST_DRIVER),
        apply=apply,
        needs=("base",),
        root=True,
        lock="apt",
        shared=True,
        by_hand=f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {_by_hand(plan)}",
    )


def _by_hand(plan: DriverPlan) -> str:
    dash_open = "-open" if plan.open else ""
    return (
        f"nvidia-headless-no-dkms-{plan.flavour} nvidia-utils-{plan.branch}-server "
        f"linux-modules-nvidia-{plan.branch}-server{dash_open}-$(uname -r)"
    )
