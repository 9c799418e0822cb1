"""Steps that make the Python environment, with whichever tool the config names.

Everything lies in the user's own folders, so none of it needs root: the tool in
`~/.cloudtrain`, shared by runs on one host, the environment in the run's own folder.
An environment that is not as asked is made anew, never mended.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloudtrain.bootstrap.step import Step
from cloudtrain.catalog import miniconda
from cloudtrain.catalog.miniconda import Installer
from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.models.url import secrets_in
from cloudtrain.render import render

WHOLE = ".whole"
"""What says that Miniconda's installer came to its end; templates/facts.sh looks for it too."""


def environment_python(config: Config, facts: Facts, layout: Layout) -> str:
    """Return the interpreter that training uses: a path, or for `existing` maybe a bare name.

    With manager `existing`, `environment.python` is a path or a command; a mere version
    such as the default `3.12` means the machine's own `python3`. With `runtime: docker` it
    is the image's.
    """
    if config.runtime == "docker":
        return config.docker.python
    environment = config.environment
    if environment.manager != "existing":
        return f"{prefix(config, facts, layout)}/bin/python"
    if environment.python[:1].isdigit():
        return facts.python3 or "python3"
    return environment.python


def prefix(config: Config, facts: Facts, layout: Layout) -> str:
    """Return where the environment lies: in the run's folder, or where its image brought it.

    An environment cannot be moved. A rented machine has one run; on a host of the user's
    own an environment that two runs share would be a way from one into the other.
    """
    return facts.baked if facts.baked and config.provider != "ssh" else layout.env


def marks(config: Config, facts: Facts, layout: Layout) -> str:
    """Return the folder of marks: what was asked for when a step last succeeded.

    It lies inside the environment, so that they are gone when the environment is.
    """
    inside = config.environment.manager != "existing"
    return f"{prefix(config, facts, layout)}/.cloudtrain" if inside else f"{layout.root}/marks"


def digest(*asked: str) -> str:
    """Return a short name for what was asked for."""
    return hashlib.sha256("\0".join(asked).encode()).hexdigest()[:32]


def uv_path(facts: Facts) -> str:
    """Return the uv there is, or where ours will be."""
    return facts.uv or f"{facts.home}/.cloudtrain/bin/uv"


def conda_path(facts: Facts) -> str:
    """Return the conda there is, or where ours will be."""
    return facts.conda or f"{_own_conda(facts)}/bin/conda"


def _own_conda(facts: Facts) -> str:
    return f"{facts.home}/.cloudtrain/miniconda3"


@dataclass(frozen=True, slots=True)
class Index:
    """The lines that make pip and uv use an index.

    They set environment variables: an address may hold a password, which an argument
    list would show to everyone on the machine.
    """

    address: str | None
    also: str = ""
    """Another index that a step asks for some packages."""

    @property
    def exports(self) -> str:
        """Bash that sets it; uv is told to trust what the machine trusts, as pip is.

        A company's proxy has its certificate there, and uv would look at its own alone.
        """
        lines = ["export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off"]
        lines += ["export UV_NO_PROGRESS=1"]
        lines += ["[ ! -s /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS=1"]
        if self.address:
            quoted = shlex.quote(self.address)
            lines += [f"export PIP_INDEX_URL={quoted} UV_DEFAULT_INDEX={quoted}"]
        # An index without TLS is one that the user has named; pip leaves it out without a word of ours.
        asked = [urlsplit(one) for one in (self.address, self.also) if one]
        if plain := [one.netloc.rpartition("@")[2] for one in asked if one.scheme == "http"]:
            lines += [f"export PIP_TRUSTED_HOST={shlex.quote(' '.join(plain))}"]
        return "\n".join(lines)


def environment_steps(
    config: Config,
    facts: Facts,
    layout: Layout,
    *,
    installers: dict[str, Installer] = miniconda.INSTALLERS,
) -> tuple[Step, ...]:
    """Return the steps for tool and environment.

    Raises `UsageError` for an architecture that has no pinned Miniconda installer.
    """
    match config.environment.manager:
        case "existing":
            return (_existing(config, facts, layout),)
        case "conda":
            tool: tuple[Step, ...] = (_miniconda(config, facts, installers),)
        case "uv":
            tool = (_uv(config, facts),)
        case "venv":
            tool = ()
    return (*tool, _environment(config, facts, layout))


def _uv(config: Config, facts: Facts) -> Step:
    path = uv_path(facts)
    return Step(
        name="uv",
        reason="`environment.manager` is uv",
        check=f"[ -x {shlex.quote(path)} ]",
        apply=render(
            "step-uv.sh.j2",
            index=Index(config.mirrors.package_index).exports,
            folder=f"{facts.home}/.cloudtrain",
        ),
        needs=("base",),
        timeout_s=300,
        shared=True,
    )


def _miniconda(config: Config, facts: Facts, installers: dict[str, Installer]) -> Step:
    path = conda_path(facts)
    installer = installers.get(facts.arch)
    if installer is None and not facts.conda:
        raise UsageError(
            f"no Miniconda installer is pinned for {facts.arch}",
            hint="set `environment.manager` to `uv`",
        )
    folder = (config.mirrors.conda_installer or miniconda.FOLDER).rstrip("/")
    return Step(
        name="miniconda",
        reason="`environment.manager` is conda",
        check=_conda_is_whole(path, facts),
        apply=render(
            "step-miniconda.sh.j2",
            whole=WHOLE,
            address=f"{folder}/{installer.name}" if installer else "",
            sha256=installer.sha256 if installer else "",
            folder=f"{facts.home}/.cloudtrain",
        ),
        needs=("base",),
        timeout_s=900,
        shared=True,
    )


def _conda_is_whole(path: str, facts: Facts) -> str:
    """Return the check: of our own, that its installer came to its end; bin/conda is there long before."""
    there = f"[ -x {shlex.quote(path)} ]"
    own = _own_conda(facts)
    return f"{there} && [ -e {shlex.quote(own)}/{WHOLE} ]" if path.startswith(f"{own}/") else there


def _environment(config: Config, facts: Facts, layout: Layout) -> Step:
    environment = config.environment
    channel = config.mirrors.conda_channel or miniconda.CHANNEL
    asked = digest(environment.manager, environment.python)
    mark = f"{marks(config, facts, layout)}/environment"
    env = prefix(config, facts, layout)
    return Step(
        name="environment",
        reason=f"a Python {environment.python} environment by {environment.manager}",
        check=f"[ -x {shlex.quote(env)}/bin/python ] || {{ echo 'there is none'; exit 1; }}\n"
        f'[ "$(cat {shlex.quote(mark)} 2>/dev/null)" = {asked} ] || '
        "{ echo 'it is of another manager or Python'; exit 1; }",
        apply=render(
            "step-environment.sh.j2",
            manager=environment.manager,
            python=environment.python,
            env=env,
            mark=mark,
            asked=asked,
            uv=uv_path(facts),
            conda=conda_path(facts),
            channel=channel,
            private=bool(secrets_in(channel)),
            wanted=json.dumps(
                {"channels": [channel, "nodefaults"], "dependencies": [f"python={environment.python}", "pip"]}
            ),
            builds=(config.mirrors.python_builds or "").rstrip("/"),
            index=Index(None).exports,
        ),
        needs=("base", "uv", "miniconda"),
        lock="env",
        timeout_s=1200,
    )


def _existing(config: Config, facts: Facts, layout: Layout) -> Step:
    python = environment_python(config, facts, layout)
    return Step(
        name="environment",
        reason=f"`{python}` is used as it is",
        check=f"command -v {shlex.quote(python)} >/dev/null",
        apply=f"echo {shlex.quote(f'there is no {python} on the machine: correct environment.python')}; exit 1",
        lock="env",
        timeout_s=30,
    )
