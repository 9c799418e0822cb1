"""Steps that change the system and so need root: the first boot's end, and apt's packages.

As little as possible: every package is a download, a trigger and a thing to break.
"""

from __future__ import annotations

import shlex

from cloudtrain.bootstrap.step import Step
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.render import render

_PACKAGES: dict[str, tuple[str, str]] = {
    "screen": ("screen", "command -v screen"),
    "rsync": ("rsync", "command -v rsync"),
    "git": ("git", "command -v git"),
    "curl": ("curl", "command -v curl"),
    "bzip2": ("bzip2", "command -v bzip2"),
    "bsdtar": ("libarchive-tools", "command -v bsdtar"),
    "xz": ("xz-utils", "command -v xz"),
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
    found = (_cloud_init(facts), _apt_mirror(config, facts), _base(config, facts))
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
    names += _for_archive(config)
    return tuple(dict.fromkeys(names))


def _for_archive(config: Config) -> tuple[str, ...]:
    """Return what unpacks the dataset, where it is an archive that not every Linux can read."""
    name = (config.dataset.path or config.dataset.source or "").lower()
    for endings, program in (
        ((".tar.zst", ".tzst", ".7z", ".rar"), "bsdtar"),
        ((".tar.xz", ".txz"), "xz"),
        ((".tar.bz2", ".tbz2"), "bzip2"),
    ):
        if name.endswith(endings):
            return (program,)
    return ()


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
        # On a machine of the user's own it may have been so for years.
        + (_WHOLE if facts.apt and config.provider != "ssh" else ""),
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
