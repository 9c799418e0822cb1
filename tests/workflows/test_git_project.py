"""`project.git`: cloned on the machine, never over the user's line."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.road import CONFIG, TRAIN, Road, home, until

pytestmark = pytest.mark.road


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def way(tmp_path: Path) -> Generator[Road]:
    with home(tmp_path / "home") as folder:
        yield Road(tmp_path / "road", folder)


def git(folder: Path, *args: str) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *args], cwd=folder, env=env, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Generator[str]:
    """A repository served over HTTP, with a tag and a newer main."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "train.py").write_text(TRAIN)
    git(work, "init")
    git(work, "add", ".")
    git(work, "commit", "-m", "one")
    git(work, "tag", "v1")
    (work / "train.py").write_text("print('newer', flush=True)\n")
    git(work, "commit", "-am", "two")
    git(tmp_path, "clone", "--bare", str(work), "served/repo.git")
    git(tmp_path / "served" / "repo.git", "update-server-info")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/repo.git"
    server.shutdown()
    server.server_close()
    thread.join()


def log_of(way: Road) -> str:
    until(lambda: way.json("status")["result"]["training"]["session"]["state"] != "running", timeout=60)
    return way.call("logs").stdout


def test_a_tag_is_cloned_and_main_follows_when_asked(way: Road, repository: str) -> None:
    config = way.project / "cloudtrain.yaml"
    (way.project / "train.py").unlink()
    config.write_text(CONFIG + f"project: {{git: {repository}, ref: v1}}\n")
    way.call("up", "-y")
    assert "first line" in log_of(way)
    config.write_text(CONFIG + f"project: {{git: {repository}}}\n")
    way.call("train")
    assert "newer" in log_of(way)
    way.call("down")
    assert way.left() == []
