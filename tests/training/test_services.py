"""Services by stand-ins that listen as the real ones do; they say what they were given."""

from __future__ import annotations

import http.client
import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.errors import StepError
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Service
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.training import ensure_jupyter, ensure_tensorboard, stop_services
from tests.support.sshd import Sshd
from tests.training.conftest import gone

STAND_IN = """
import http.server, json, os, subprocess, sys
words = sys.argv[1:]
port = next(int(word.rpartition("=")[2]) for word, before in zip(words, ["", *words]) if before == "--port" or word.startswith("--port="))
kernel = subprocess.Popen(["sleep", "1000"], start_new_session=True)
answer = json.dumps({"argv": words, "pid": os.getpid(), "kernel": kernel.pid, "environ": dict(os.environ)})
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Environment:
    """An interpreter whose modules are those put into it."""

    def __init__(self, folder: Path) -> None:
        self.modules = folder / "modules"
        self.modules.mkdir(parents=True)
        self.python = folder / "python"
        self.python.write_text(f"#!/bin/sh\nPYTHONPATH='{self.modules}' exec '{sys.executable}' -S \"$@\"\n")
        self.python.chmod(0o755)

    def add(self, package: str, text: str = STAND_IN) -> None:
        (self.modules / package).mkdir()
        (self.modules / package / "__init__.py").touch()
        for name in ("main", "__main__"):
            (self.modules / package / f"{name}.py").write_text(text)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env")


@pytest.fixture
def layout(sshd: Sshd) -> Layout:
    return Layout(f"{sshd.home}/run")


def ask(service: Service) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request("GET", "/")
    answer: dict[str, object] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_tensorboard_starts_once_and_outlives_the_connection(
    sshd: Sshd, layout: Layout, environment: Environment
) -> None:
    environment.add("tensorboard")
    with connect(sshd.target) as remote:
        first = ensure_tensorboard(remote, layout, slug="helmets", python=str(environment.python))
    with connect(sshd.target) as remote:
        assert ensure_tensorboard(remote, layout, slug="helmets", python=str(environment.python)) == first
    said = ask(first)
    assert said["argv"] == [
        "--logdir", f"{layout.root}/runs", "--host", "127.0.0.1", "--port", str(first.port), "--window_title", "helmets",
    ]  # fmt: skip
    with connect(sshd.target) as remote:
        stop_services(remote, layout)
        assert gone(said["pid"])
        assert gone(said["kernel"])
        again = ensure_tensorboard(remote, layout, slug="helmets", python=str(environment.python))
        assert ask(again)["pid"] != said["pid"]
        stop_services(remote, layout)
        stop_services(remote, layout)


def test_jupyters_token_is_nowhere_but_in_its_file(
    remote: Remote, layout: Layout, environment: Environment
) -> None:
    environment.add("jupyterlab")
    service = ensure_jupyter(remote, layout, slug="helmets", python=str(environment.python))
    said = ask(service)
    assert len(service.token) == 48
    assert service.token not in json.dumps(said)
    assert service.token not in repr(service)
    folder = Path(layout.services, "jupyter")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    holding = [path for path in folder.rglob("*") if path.is_file() and service.token in path.read_text()]
    assert holding == [folder / "token"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert ensure_jupyter(remote, layout, slug="helmets", python=str(environment.python)) == service
    stop_services(remote, layout)
    assert not (folder / "token").exists()


def test_jupyter_reads_the_token_from_its_config(
    remote: Remote, layout: Layout, environment: Environment
) -> None:
    environment.add("notebook")
    service = ensure_jupyter(remote, layout, slug="helmets", python=str(environment.python))
    config = Path(layout.services, "jupyter", "config.py").read_text()

    class Anything:
        def __getattr__(self, name: str) -> Anything:
            made = Anything()
            setattr(self, name, made)
            return made

    c = Anything()
    exec(config, {"get_config": lambda: c})
    assert vars(c.IdentityProvider)["token"] == service.token
    assert vars(c.ServerApp)["ip"] == "127.0.0.1"
    assert vars(c.ServerApp)["root_dir"] == layout.root
    stop_services(remote, layout)


def test_a_missing_package_is_installed_on_demand(
    remote: Remote, layout: Layout, environment: Environment
) -> None:
    asked: list[str] = []

    def install(package: str) -> None:
        asked.append(package)
        environment.add(package)

    for _ in range(2):
        ensure_jupyter(remote, layout, slug="h", python=str(environment.python), install=install)
        ensure_tensorboard(remote, layout, slug="h", python=str(environment.python), install=install)
    assert asked == ["jupyterlab", "tensorboard"]
    stop_services(remote, layout)


def no_install(_: str) -> None:
    """An install that changes nothing."""


@pytest.mark.parametrize("install", [None, no_install])
def test_a_package_that_stays_missing_is_said(
    remote: Remote, layout: Layout, environment: Environment, install: Callable[[str], None] | None
) -> None:
    with pytest.raises(StepError, match="not in the run's environment") as caught:
        ensure_tensorboard(remote, layout, slug="h", python=str(environment.python), install=install)
    assert "`tensorboard`" in caught.value.hint


def test_a_service_that_dies_is_an_error_with_its_last_words(
    remote: Remote, layout: Layout, environment: Environment
) -> None:
    environment.add("tensorboard", "raise SystemExit('no such option')\n")
    with pytest.raises(StepError, match="no such option"):
        ensure_tensorboard(remote, layout, slug="h", python=str(environment.python))


def test_one_that_was_killed_is_started_again(
    remote: Remote, layout: Layout, environment: Environment
) -> None:
    environment.add("tensorboard")
    first = ask(ensure_tensorboard(remote, layout, slug="h", python=str(environment.python)))
    os.kill(int(str(first["pid"])), 9)
    second = ask(ensure_tensorboard(remote, layout, slug="h", python=str(environment.python)))
    assert first["pid"] != second["pid"]
    stop_services(remote, layout)


def test_two_terminals_that_ask_at_once_get_one_service(
    sshd: Sshd, layout: Layout, environment: Environment
) -> None:
    environment.add("tensorboard")
    found: list[Service] = []

    def ensure() -> None:
        with connect(sshd.target) as remote:
            found.append(ensure_tensorboard(remote, layout, slug="h", python=str(environment.python)))

    terminals = [threading.Thread(target=ensure) for _ in range(3)]
    for terminal in terminals:
        terminal.start()
    for terminal in terminals:
        terminal.join(60)
    assert len(found) == 3
    assert len(set(found)) == 1
    with connect(sshd.target) as remote:
        stop_services(remote, layout)
