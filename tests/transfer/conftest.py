"""What the tests of transfer share: a layout on the machine, and both kinds of machine."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

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


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 of our own, with one bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-caller",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    client: Any = cast("Any", boto3).client("s3")
    client.create_bucket(Bucket="data")
    yield client
    server.stop()


@pytest.fixture
def web(base: Path) -> Iterator[str]:
    """A web server of a folder. `dataset-fetch` is told http, which `inspect_dataset` never lets through."""
    (base / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(base / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
