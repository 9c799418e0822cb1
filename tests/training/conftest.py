"""A machine with a project folder, and sessions of kind script on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudtrain.models.config import Config, Train
from cloudtrain.models.machine import Facts, Gpu
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Session
from cloudtrain.ssh.remote import Remote
from cloudtrain.training import follow, sessions, start
from tests.support.sshd import Sshd

SLUG = "helmets-0badcafe"


def facts(*, gpus: tuple[Gpu, ...] = (), screen: str | None = "/usr/bin/screen") -> Facts:
    """What a plain machine says of itself."""
    return Facts(
        os_id="debian", os_version="12", kernel="6.1", arch="x86_64", cpus=2, memory_mib=8000, shm_mib=4000,
        disk_free_mib=50000, user="me", home="/home/me", root=False, sudo=False, apt=False, systemd=False,
        cloud_init=False, container=False, wsl=False, screen=screen, rsync=None, git=None, curl=None,
        python3=None, python3_version=None, uv=None, conda=None, docker=None, nvidia_smi_error=None, gpus=gpus,
    )  # fmt: skip


@dataclass
class Bench:
    """Starts commands as sessions, and hears their output."""

    sshd: Sshd
    remote: Remote
    layout: Layout
    started: list[Session] = field(default_factory=list[Session])

    def config(self, command: str, **train: object) -> Config:
        return Config(train=Train(kind="script", command=command, **train))  # pyright: ignore[reportArgumentType]

    def start(self, command: str, *, number: int = 1, python: str = "/usr/bin/python3") -> Session:
        session = start(
            self.remote, self.config(command), self.layout, slug=SLUG, python=python, number=number,
            dataset_yaml=None, model="", facts=facts(),
        )  # fmt: skip
        self.started.append(session)
        return session

    def until(self, session: Session, said: str) -> None:
        """Wait until the session's log holds `said`."""
        self.remote.script(
            'for _ in {1..1000}; do grep -qsF -e "$2" "$1" && exit; sleep 0.02; done; exit 1',
            session.log,
            said,
        )

    def log(self, session: Session) -> str:
        return Path(session.log).read_text()

    def now(self, number: int = 1) -> Session:
        """The session as another terminal sees it."""
        return next(s for s in sessions(self.remote, self.layout) if s.number == number)

    def end(self, session: Session) -> Session:
        """Wait for its end."""
        return follow(self.remote, session, lambda _: None)

    def pid(self, session: Session, who: str) -> int:
        return int((Path(session.log).parent / who).read_text().split()[1])


@pytest.fixture
def layout(sshd: Sshd) -> Layout:
    made = Layout(f"{sshd.home}/cloudtrain/{SLUG}")
    Path(made.project).mkdir(parents=True)
    return made


@pytest.fixture
def bench(sshd: Sshd, remote: Remote, layout: Layout) -> Bench:
    return Bench(sshd, remote, layout)


class Heard:
    """Lines as they come; lets a test wait for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()

    def __call__(self, line: str) -> None:
        with self._more:
            self.lines.append(line)
            self._more.notify_all()

    def wait(self, wanted: Callable[[list[str]], bool], timeout: float = 20) -> bool:
        with self._more:
            return self._more.wait_for(lambda: wanted(self.lines), timeout)


def gone(pid: object) -> bool:
    """Whether no such process runs; a zombie runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
