"""What the tests of transfer share: a layout on the machine, and both kinds of machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.events import Event
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote, connect
from tests.support.sshd import Sshd


class Seen:
    """A reporter that keeps everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def without(folder: Path, *names: str) -> str:
    """Make a PATH with everything the machine has but these programs."""
    folder.mkdir(parents=True)
    for source in ("/usr/bin", "/bin"):
        for program in Path(source).iterdir():
            link = folder / program.name
            if program.name not in names and not link.exists() and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)


@pytest.fixture(params=["rsync", "tar"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sshd]:
    """A machine with rsync, and one without."""
    path = "/usr/local/bin:/usr/bin:/bin" if request.param == "rsync" else without(tmp_path / "bin", "rsync")
    server = Sshd(tmp_path / "machine", path=path).start()
    yield server
    server.stop()


@pytest.fixture
def line(machine: Sshd) -> Iterator[Remote]:
    with connect(machine.target) as connected:
        yield connected


@pytest.fixture
def layout(machine: Sshd) -> Layout:
    return Layout(f"{machine.home}/.cloud train/r 1")


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "my project"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
