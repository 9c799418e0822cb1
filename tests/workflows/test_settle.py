"""What a session starts with is what the steps have made of the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.link import Link
from cloudtrain.events import Event, Progress, Reporter, Silent, Timeline
from cloudtrain.journal.folder import create
from cloudtrain.models.config import Config, Dataset, Environment, Train
from cloudtrain.models.machine import Gpu
from cloudtrain.models.plan import Plan
from cloudtrain.providers.base import Provider
from cloudtrain.ssh.remote import connect
from cloudtrain.transfer.dataset import inspect_dataset
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


def settling(config: Config, project: Path, reporter: Reporter) -> Context:
    shown: Callable[[Plan], None] = nothing  # pyright: ignore[reportAssignmentType]
    return Context(
        config=config,
        base=project,
        provider=none,
        reporter=reporter,
        timeline=Timeline(reporter),
        confirm=nothing,
        show_plan=shown,
    )


def test_a_driver_that_a_step_has_brought_is_there_for_the_training(sshd: Sshd, tmp_path: Path) -> None:
    sshd.bring({"python3": PYTHON3.format(folder=sshd.folder / "bin")})
    project = tmp_path / "project"
    project.mkdir()
    config = Config(
        provider="ssh",
        environment=Environment(manager="venv", python="3", torch="none"),
        train=Train(kind="script", command="true"),
    )
    context = settling(config, project, Silent())
    folder = create(name="own", owner="me", provider="ssh", region="own", project=project)
    with connect(sshd.target) as remote:
        settled = settle(context, remote, folder, None)
        assert settled.facts.gpus == (Gpu("Tesla T4", 15360, "580.95.05", (7, 5)),)


class Impatient:
    """A reporter whose reader presses Ctrl-C when OpenSSH has taken over."""

    def __init__(self, stand_still: Callable[[], None]) -> None:
        self.stand_still = stand_still
        self.pressed = threading.Event()

    def emit(self, event: Event) -> None:
        if isinstance(event, Progress) and event.done >= 8 << 20 and not self.pressed.is_set():
            self.pressed.set()
            self.stand_still()
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for sockets, whose paths have to be short; and Python's own answer to an interrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stalled", [False, True], ids=["flowing", "stalled"])
def test_an_interrupt_ends_both_pushes(sshd: Sshd, tmp_path: Path, sockets: Path, stalled: bool) -> None:
    """The connection, OpenSSH's lines and the threads, well before everything is sent."""
    project, data = tmp_path / "project", tmp_path / "data"
    for folder in (project, data):
        folder.mkdir()
        (folder / "a.npy").write_bytes(os.urandom(48 << 20))
    (project / ".cloudtrainignore").write_text("!*.npy\n")
    train, environment = Train(kind="script", command="true"), Environment(manager="existing", torch="none")
    config = Config(provider="ssh", environment=environment, train=train, dataset=Dataset(path=str(data)))
    link = Link(("127.0.0.1", sshd.port), 0.002, 12e6)
    serving = threading.Thread(target=link.serve, daemon=True)
    serving.start()
    pressing = Impatient(lambda: setattr(link.there, "free_at", float("inf")) if stalled else None)
    context = settling(config, project, pressing)
    run = create(name="own", owner="me", provider="ssh", region="own", project=project)
    source = inspect_dataset(config, project)
    with connect(replace(sshd.target, port=link.port)) as remote, pytest.raises(KeyboardInterrupt):
        settle(context, remote, run, source)
    assert pressing.pressed.is_set()
    assert link.there.carried < 64 << 20
    assert not list(sockets.glob("ct-*"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("settle")]
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-x", "ssh"], check=False, capture_output=True)
    assert found.stdout == b""
    link.stop.set()
    serving.join()
