"""Jupyter and TensorBoard on the machine's loopback.

They are daemons of their own: they outlive the connection that asked for them, and a
second question finds the first answer. Nothing but the machine itself reaches them, so
a tunnel is the only way in. Jupyter's token lies in a 0600 file which its config reads:
an argument or a variable would be in every process list. TensorBoard knows no
authentication at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cloudtrain.errors import StepError
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Service
from cloudtrain.ssh.remote import Remote
from cloudtrain.training.scripts import script

MISSING = 3
"""Exit code of service-start.sh when the environment has none of the modules."""

READY_S = 240
"""Seconds for a service to answer: a first import from a cold disk can take a minute."""

Install = Callable[[str], None]
"""Puts a package into the run's environment."""


@dataclass(frozen=True, slots=True)
class _Program:
    name: Literal["jupyter", "tensorboard"]
    package: str
    modules: str
    arguments: tuple[str, ...]
    config: str = ""


def ensure_jupyter(
    remote: Remote, layout: Layout, *, slug: str, python: str, install: Install | None = None
) -> Service:
    """Return the run's Jupyter, started if it does not run: JupyterLab, else Notebook.

    Its root is the run's folder. `install` is called with a package's name when the
    environment lacks it. Raises `StepError` when it is missing still, or does not come up.
    """
    folder = f"{layout.services}/jupyter"
    program = _Program(
        "jupyter",
        "jupyterlab",
        "jupyterlab=jupyterlab notebook=notebook",
        (f"--config={folder}/config.py", "--port=@PORT@"),
        _jupyter_config(folder, layout.root),
    )
    return _ensure(remote, layout, program, slug=slug, python=python, install=install)


def ensure_tensorboard(
    remote: Remote, layout: Layout, *, slug: str, python: str, install: Install | None = None
) -> Service:
    """Return the run's TensorBoard over all its sessions, started if it does not run.

    `install` and errors as for `ensure_jupyter`.
    """
    program = _Program(
        "tensorboard",
        "tensorboard",
        "tensorboard=tensorboard.main",
        (
            "--logdir",
            f"{layout.root}/runs",
            "--host",
            "127.0.0.1",
            "--port",
            "@PORT@",
            "--window_title",
            slug,
        ),
    )
    return _ensure(remote, layout, program, slug=slug, python=python, install=install)


def stop_services(remote: Remote, layout: Layout) -> None:
    """End Jupyter with its notebooks, and TensorBoard. Not running is fine."""
    remote.script(script("service-stop.sh"), layout.services, timeout=60)


def _ensure(
    remote: Remote, layout: Layout, program: _Program, *, slug: str, python: str, install: Install | None
) -> Service:
    folder = f"{layout.services}/{program.name}"
    words = (folder, python, program.modules, program.config, slug, *program.arguments)
    result = remote.script(script("service-start.sh"), *words, timeout=READY_S, check=False)
    if result.code == MISSING and install is not None:
        install(program.package)
        result = remote.script(script("service-start.sh"), *words, timeout=READY_S, check=False)
    if result.code == MISSING:
        raise StepError(
            f"{program.name} is not in the run's environment",
            hint=f"add `{program.package}` to `environment.packages` and run `cloudtrain up`",
        )
    answer = result.stdout.split()
    if not result.ok or not answer:
        raise StepError(
            f"{program.name} did not start:\n{result.tail}", hint=f"its log is `{folder}/log` on the machine"
        )
    return Service(program.name, int(answer[0]), answer[1] if len(answer) > 1 else "")


def _jupyter_config(folder: str, root: str) -> str:
    return f"""\
from pathlib import Path

c = get_config()
c.IdentityProvider.token = Path({folder!r}, "token").read_text().strip()
c.ServerApp.ip = "127.0.0.1"
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.root_dir = {root!r}
c.ServerApp.allow_root = True
c.ServerApp.quit_button = False
"""
