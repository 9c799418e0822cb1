"""What a session starts with is what the steps have made of the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cloudtrain.events import Silent, Timeline
from cloudtrain.journal.folder import create
from cloudtrain.models.config import Config, Environment, Train
from cloudtrain.models.machine import Gpu
from cloudtrain.models.plan import Plan
from cloudtrain.providers.base import Provider
from cloudtrain.ssh.remote import connect
from cloudtrain.workflows.context import Context
from cloudtrain.workflows.settle import settle
from tests.support.sshd import Sshd

PYTHON3 = """#!/bin/sh
# Making the environment brings a driver along.
case "$*" in "-m venv "*) printf '#!/bin/sh\\necho Tesla T4, 15360, 580.95.05, 7.5\\n' >{folder}/nvidia-smi
  chmod +x {folder}/nvidia-smi ;; esac
exec /usr/bin/python3 "$@"
"""


def nothing(*_: object) -> bool:
    raise AssertionError("nobody is asked here")


def none() -> Provider:
    raise AssertionError("no cloud is asked here")


def test_a_driver_that_a_step_has_brought_is_there_for_the_training(sshd: Sshd, tmp_path: Path) -> None:
    sshd.bring({"python3": PYTHON3.format(folder=sshd.folder / "bin")})
    project = tmp_path / "project"
    project.mkdir()
    config = Config(
        provider="ssh",
        environment=Environment(manager="venv", python="3", torch="none"),
        train=Train(kind="script", command="true"),
    )
    shown: Callable[[Plan], None] = nothing  # pyright: ignore[reportAssignmentType]
    context = Context(
        config=config,
        base=project,
        provider=none,
        reporter=Silent(),
        timeline=Timeline(Silent()),
        confirm=nothing,
        show_plan=shown,
    )
    folder = create(name="own", owner="me", provider="ssh", region="own", project=project)
    with connect(sshd.target) as remote:
        settled = settle(context, remote, folder, None)
        assert settled.facts.gpus == (Gpu("Tesla T4", 15360, "580.95.05", (7, 5)),)
