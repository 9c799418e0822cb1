"""`watch` by the installed command: on a terminal, without one, as JSON; the training goes on."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import termios
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.hosts import HostRoad, listed
from tests.support.sshd import Sshd

pytestmark = pytest.mark.road
ROWS = "epoch,train/box_loss,metrics/mAP50(B)\n1,3.0,0.1\n2,2.0,0.2\n"


@pytest.fixture
def way(tmp_path: Path, sshd: Sshd) -> Generator[HostRoad]:
    made = HostRoad(tmp_path / "road", tmp_path / "home", host=listed(sshd, price_hour=0.5))
    (made.project / "wait").touch()
    (made.project / "train.py").write_text(
        f"import os\nopen(os.environ['CLOUDTRAIN_RUN_DIR'] + '/results.csv', 'w').write({ROWS!r})\n"
        + (made.project / "train.py").read_text()
    )
    made.call("up", "-y")
    yield made
    made.call("down", "--discard", "--stop-training", code=None)


def go(sshd: Sshd) -> None:
    (project,) = sshd.home.glob("cloudtrain/own-*/project")
    (project / "go").touch()


def test_a_line_a_look_until_the_training_ends(way: HostRoad, sshd: Sshd) -> None:
    before = sshd.handshakes()
    watching = way.start("watch", "--every", "0.5")
    assert watching.stdout is not None
    seen = [watching.stdout.readline() for _ in range(4)]
    assert all("session 001 running" in one for one in seen)
    assert "epoch 2 of" in seen[-1]
    assert "at risk" in seen[-1]
    assert "USD" in seen[-1]
    assert sshd.handshakes() == before + 1
    go(sshd)
    rest, err = watching.communicate(timeout=60)
    assert watching.returncode == 0, err
    assert "session 001 is finished" in rest


def test_json_lines_hold_curves_and_machine(way: HostRoad, sshd: Sshd) -> None:
    go(sshd)
    way.wait_for_end()
    *looks, end = [json.loads(row) for row in way.call("watch", "--json").stdout.splitlines()]
    assert looks[-1]["look"]["curves"]["values"]["train/box_loss"] == [3.0, 2.0]
    assert looks[-1]["look"]["readings"]["memory_total_mib"] > 0
    assert end["ok"]


def test_q_leaves_and_the_training_goes_on(way: HostRoad, sshd: Sshd) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(way.project)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "cloudtrain", "watch"],
            {**way.environ(), "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        )
    try:
        before = termios.tcgetattr(terminal)
        said = read(terminal, "mAP50")
        assert "at risk" in said
        assert "q leaves" in said
        assert "\x1b[?1049h" in said  # the terminal's other screen
        during = termios.tcgetattr(terminal)
        assert not during[3] & termios.ICANON
        os.write(terminal, b"q")
        said = read(terminal, None)
        assert "\x1b[?1049l" in said
        assert "is running" in said
        assert termios.tcgetattr(terminal)[3] == before[3]
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert way.json("status")["result"]["training"]["session"]["state"] == "running"


def test_a_line_that_breaks_is_said_and_connected_again(way: HostRoad, sshd: Sshd) -> None:
    watching = way.start("watch", "--every", "0.5")
    assert watching.stdout is not None
    assert "running" in watching.stdout.readline()
    sshd.drop_connections()
    seen = [watching.stdout.readline() for _ in range(6)]
    assert any("connection lost" in one for one in seen), seen
    assert "connection lost" not in seen[-1]
    go(sshd)
    rest, err = watching.communicate(timeout=60)
    assert watching.returncode == 0, err
    assert "finished" in rest


def test_an_interrupted_training_that_its_guard_goes_on_with_is_waited_for(way: HostRoad, sshd: Sshd) -> None:
    watching, fetching = way.start("watch", "--every", "0.5"), way.start("fetch-weights", "--watch")
    assert watching.stdout is not None
    assert "session 001 running" in watching.stdout.readline()
    (session,) = sshd.home.glob("cloudtrain/own-*/sessions/001")
    for who in ("supervisor", "trainer"):
        os.kill(int((session / who).read_text().split()[1]), signal.SIGKILL)
    seen = [watching.stdout.readline()]
    while "session 001 running" not in seen[-1] or not any("interrupted" in one for one in seen):
        seen.append(watching.stdout.readline())
        assert seen[-1], watching.communicate()
    go(sshd)
    for process in (watching, fetching):
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        assert "best.pt" in out or "session 001 is finished" in out
    assert "the training was interrupted" in err


def read(terminal: int, until: str | None) -> str:
    """Read until something shows, or with None until the command ends."""
    said, end = "", time.monotonic() + 60
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.5)
        if not ready:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            return said
        if not piece:
            return said
        said += piece.decode("utf-8", "replace")
        if until is not None and until in said and "q leaves" in said:
            return said
    raise AssertionError(said)
