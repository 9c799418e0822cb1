"""From start to end: one server a folder, nothing left, whatever happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudtrain.providers import sandbox
from tests.sandbox.conftest import Cloud, start
from tests.sandbox.support import processes_with, until

LEFT = {"sandbox.log", "calls.jsonl", "serving.lock", "starting.lock", "home"}


@pytest.fixture
def state(tmp_path: Path) -> Generator[Path]:
    yield tmp_path / "state"
    sandbox.stop(tmp_path / "state")


def pid_of(cloud: Cloud) -> int:
    return int(json.loads((cloud.state / "endpoint.json").read_text())["pid"])


def test_two_callers_start_one(state: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(sandbox.ensure, [state] * 4))
    assert len({end.url for end in found}) == 1
    assert sandbox.running(state) == found[0]
    began = time.perf_counter()
    sandbox.ensure(state)
    assert time.perf_counter() - began < 0.02


def test_several_at_the_same_time(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    try:
        first, second = start(state), start(other)
        assert first.endpoint.url != second.endpoint.url
        one, two = first.launch(), second.launch()
        first.until(one, "running")
        second.until(two, "running")
        assert first.address(one) != second.address(two)
        sandbox.stop(state)
        assert second.ssh(two, "echo alive") == "alive\n"
    finally:
        sandbox.stop(other)


def test_stop_leaves_nothing_and_may_come_twice(state: Path) -> None:
    cloud = start(state)
    name, pid = cloud.running(), pid_of(cloud)
    cloud.ssh(name, "nohup sleep 600 > /dev/null 2>&1 < /dev/null &")
    sandbox.stop(state)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the server is still there")
    assert processes_with(name) == []
    assert {entry.name for entry in state.iterdir()} == LEFT
    assert {entry.name for entry in (state / "home").iterdir()} == {".cache"}
    assert sandbox.running(state) is None
    sandbox.stop(state)
    sandbox.stop(state.parent / "never-was")


@pytest.mark.parametrize("then", ["ensure", "stop"])
def test_what_a_crash_left_is_reaped(state: Path, then: str) -> None:
    cloud = start(state)
    name = cloud.running()
    cloud.ssh(name, "setsid sleep 600 > /dev/null 2>&1 < /dev/null &")
    os.kill(pid_of(cloud), signal.SIGKILL)
    until(lambda: sandbox.running(state) is None, "a killed server is taken for a living one")
    assert processes_with(name)
    if then == "ensure":
        sandbox.ensure(state)
    else:
        sandbox.stop(state)
    assert processes_with(name) == []
    assert not (state / "home" / name).exists()


def test_it_ends_by_itself_after_its_last_machine_and_call(state: Path) -> None:
    cloud = start(state, "pending=0.1,visible=0.05,terminating=0.1,idle=5")
    pid = pid_of(cloud)
    name = cloud.running()
    time.sleep(6)  # longer than it may be idle: a machine keeps it
    assert cloud.state_of(name) == "running"
    cloud.end(name)
    until(lambda: not Path(f"/proc/{pid}").exists(), "it does not end")
    assert sandbox.running(state) is None
    assert {entry.name for entry in state.iterdir()} == LEFT
    again = sandbox.ensure(state)
    assert again.url == sandbox.ensure(state).url


def test_the_callers_package_settings_hold_inside(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "pip.conf").write_text("[global]\ntimeout = 77\n")
    (closed / "ca.pem").write_text("a certificate\n")
    (closed / "ca.pem").chmod(0o600)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(closed / "pip.conf"))
    monkeypatch.setenv("SSL_CERT_FILE", str(closed / "ca.pem"))
    monkeypatch.setenv("UV_INDEX_URL", "https://index.example/it's simple")
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(closed))
    cloud = start(state)
    name = cloud.running()
    assert "timeout = 77" in cloud.ssh(name, "cat ~/.config/pip/pip.conf")
    assert cloud.ssh(name, 'cat "$SSL_CERT_FILE"') == "a certificate\n"
    assert cloud.ssh(name, 'echo "$UV_INDEX_URL"') == "https://index.example/it's simple\n"
    assert cloud.ssh(name, 'echo "$UV_PYTHON_INSTALL_DIR"') == "\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")
def test_root_that_may_not_mount_is_told_so(state: Path) -> None:
    code = "import sys, pathlib; from cloudtrain.providers import sandbox; sandbox.ensure(pathlib.Path(sys.argv[1]))"
    less = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"]
    done = subprocess.run(
        [*less, sys.executable, "-c", code, str(state)], capture_output=True, text=True, check=False
    )
    assert "UsageError: as root the sandbox keeps its machines apart" in done.stderr
    assert sandbox.running(state) is None


def test_a_sigterm_ends_it_with_its_machines(state: Path) -> None:
    cloud = start(state)
    name, pid = cloud.launch(), pid_of(cloud)
    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists(), "it does not end")
    assert processes_with(name) == []
