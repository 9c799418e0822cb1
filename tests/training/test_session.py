from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloudtrain.errors import RefusedError, UsageError
from cloudtrain.models.config import Config, Train
from cloudtrain.models.machine import Gpu
from cloudtrain.models.run import Layout
from cloudtrain.ssh import openssh
from cloudtrain.ssh.remote import connect
from cloudtrain.training import attach_command, sessions, start, stop
from tests.support.sshd import Sshd
from tests.training.conftest import SLUG, Bench, facts, gone


def screens(bench: Bench) -> str:
    return bench.remote.run("screen -ls", check=False).stdout


def folder(bench: Bench, number: int = 1) -> Path:
    return Path(bench.layout.session(number))


def test_a_training_runs_under_screen_and_its_end_is_written_down(bench: Bench) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    session = bench.start("echo working; until [ -e go ]; do sleep 0.02; done; echo done")
    assert session.state == "running"
    assert session.screen == f"{SLUG}-001"
    assert f".{SLUG}-001\t" in screens(bench)
    assert sessions(bench.remote, bench.layout) == (session,)
    Path(bench.layout.project, "go").touch()
    ended = bench.end(session)
    assert (ended.state, ended.exit_code) == ("finished", 0)
    assert ended.started is not None
    assert ended.ended is not None
    assert before <= ended.started <= ended.ended
    assert bench.log(session) == "working\ndone\n"


def test_a_failure_keeps_its_exit_code(bench: Bench) -> None:
    ended = bench.end(bench.start("echo it broke >&2; exit 3"))
    assert (ended.state, ended.exit_code) == ("failed", 3)
    assert bench.log(ended) == "it broke\n"


def test_an_interpreter_that_is_not_there_is_said_in_the_log(bench: Bench) -> None:
    config = Config(train=Train(kind="yolo", args={"data": "x"}))
    session = start(
        bench.remote, config, bench.layout, slug=SLUG, python="/nowhere/bin/python", number=1,
        dataset_yaml=None, model="yolo11n.yaml", facts=facts(),
    )  # fmt: skip
    ended = bench.end(session)
    assert (ended.state, ended.exit_code) == ("failed", 127)
    assert "/nowhere/bin/python" in bench.log(ended)


def test_a_project_that_is_not_there_is_said_in_the_log(bench: Bench) -> None:
    Path(bench.layout.project).rmdir()
    ended = bench.end(bench.start("true"))
    assert ended.state == "failed"
    assert "project" in bench.log(ended)


@pytest.mark.parametrize(
    "text",
    ["it's", 'a "b" $HOME `id` \\', "two\nlines", "größe ✅", "-n", "{{ x }} {% raw %}", "*", "a;b & c|d"],
)
def test_odd_characters_arrive_as_they_are(bench: Bench, text: str) -> None:
    Path(bench.layout.project, "given.txt").write_text(text)
    quoted = text.replace("'", "'\"'\"'")
    ended = bench.end(bench.start(f"printf %s '{quoted}' | cmp - given.txt"))
    assert ended.exit_code == 0, bench.log(ended)


def test_the_environment_of_a_script(bench: Bench, tmp_path: Path) -> None:
    tools = tmp_path / "env" / "bin"
    tools.mkdir(parents=True)
    (tools / "python").write_text(f'#!/bin/sh\n[ "$1" = -c ] || exec echo ours\nexec {sys.executable} "$@"\n')
    (tools / "python").chmod(0o755)
    session = bench.start(
        'python; test -d "$CLOUDTRAIN_RUN_DIR" && pwd; read -r x || echo no input', python=f"{tools}/python"
    )
    bench.end(session)
    assert bench.log(session) == f"ours\n{bench.layout.project}\nno input\n"


LAST_WORDS = """
import signal, subprocess, sys
worker = subprocess.Popen(["sleep", "1000"])
def end(*_):
    try:
        worker.wait(0.5)
        print("the worker is gone", flush=True)
    except subprocess.TimeoutExpired:
        print("the worker is here", flush=True)
        worker.kill()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("around", ["exec python last.py", "true; python last.py; true"])
def test_stop_lets_the_trainer_finish_with_its_workers(bench: Bench, around: str) -> None:
    Path(bench.layout.project, "last.py").write_text(LAST_WORDS)
    session = bench.start(around, python=sys.executable)
    bench.until(session, "ready")
    ended = stop(bench.remote, bench.layout, session)
    assert ended.state in ("finished", "failed")  # a shell around it answers for itself
    assert "the worker is here\n" in bench.log(session)
    assert SLUG not in screens(bench)


def test_stop_kills_what_does_not_listen_and_its_children(bench: Bench) -> None:
    session = bench.start(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > far; exec sleep 1000' & until [ -s far ]; do sleep 0.02; done;"
        "echo ready; while :; do sleep 0.02; done"
    )
    bench.until(session, "ready")
    far = int(Path(bench.layout.project, "far").read_text())
    ended = stop(bench.remote, bench.layout, session, grace_s=1)
    assert (ended.state, ended.exit_code, ended.how) == ("failed", 137, "stopped")
    assert gone(far)
    assert SLUG not in screens(bench)
    assert stop(bench.remote, bench.layout, session) == ended


def test_what_failed_by_itself_was_not_stopped(bench: Bench) -> None:
    failed = bench.end(bench.start("exit 3"))
    assert (failed.how, stop(bench.remote, bench.layout, failed).how) == ("failed", "failed")


def test_only_the_session_that_is_meant_is_stopped(bench: Bench) -> None:
    first, second = bench.start("sleep 1000"), bench.start("sleep 1000", number=2)
    assert stop(bench.remote, bench.layout, first).state == "failed"
    assert [s.state for s in sessions(bench.remote, bench.layout)] == ["failed", "running"]
    assert stop(bench.remote, bench.layout, second).state == "failed"


def test_a_number_is_given_once(bench: Bench) -> None:
    first = bench.start("echo first; sleep 1000")
    with pytest.raises(RefusedError, match="session 001"):
        bench.start("echo second")
    bench.until(first, "first")
    assert bench.now() == first
    assert [path.name for path in folder(bench).parent.iterdir()] == ["001"]
    stop(bench.remote, bench.layout, first)


def test_a_config_that_cannot_run_starts_nothing(bench: Bench) -> None:
    with pytest.raises(UsageError):
        bench.start("")
    assert sessions(bench.remote, bench.layout) == ()


def test_a_dropped_connection_is_not_noticed(bench: Bench, sshd: Sshd) -> None:
    session = bench.start("until [ -e go ]; do sleep 0.02; done; echo done")
    sshd.drop_connections()
    with connect(sshd.target) as again:
        assert sessions(again, bench.layout) == (session,)
        Path(bench.layout.project, "go").touch()
        bench.remote = again
        assert bench.end(session).state == "finished"
    assert bench.log(session) == "done\n"


def test_the_training_outlives_its_supervisor_and_screen(bench: Bench) -> None:
    session = bench.start("echo ready; until [ -e go ]; do sleep 0.02; done; echo done")
    bench.until(session, "ready")
    os.kill(bench.pid(session, "supervisor"), signal.SIGKILL)
    assert bench.now().state == "running"
    Path(bench.layout.project, "go").touch()
    ended = bench.end(session)
    assert (ended.state, ended.exit_code) == ("interrupted", None)
    assert bench.log(session) == "ready\ndone\n"


def test_killed_altogether_is_interrupted(bench: Bench) -> None:
    session = bench.start("echo ready; exec sleep 1000")
    bench.until(session, "ready")
    for who in ("supervisor", "trainer"):
        os.kill(bench.pid(session, who), signal.SIGKILL)
    ended = bench.end(session)
    assert (ended.state, ended.ended, ended.how) == ("interrupted", None, "interrupted")
    assert stop(bench.remote, bench.layout, session).how == "stopped"


def test_stop_ends_what_lost_its_supervisor(bench: Bench) -> None:
    session = bench.start("echo ready; exec sleep 1000")
    bench.until(session, "ready")
    os.kill(bench.pid(session, "supervisor"), signal.SIGKILL)
    assert stop(bench.remote, bench.layout, session).how == "stopped"


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_screen_killed_or_standing_still_stops_nothing(bench: Bench, what: signal.Signals) -> None:
    session = bench.start("echo ready; until [ -e go ]; do sleep 0.02; done; seq 100000; echo done")
    bench.until(session, "ready")
    screen = int(screens(bench).split(f".{SLUG}-001")[0].split()[-1])
    os.kill(screen, what)
    Path(bench.layout.project, "go").touch()
    ended = bench.end(session)
    assert (ended.state, ended.exit_code) == ("finished", 0)
    assert bench.log(session).endswith("100000\ndone\n")


@pytest.mark.parametrize("field", [0, 2])
def test_a_reused_process_number_is_not_the_training(bench: Bench, field: int) -> None:
    """After a reboot, or much later, another process has the number."""
    session = bench.start("echo ready; exec sleep 1000")
    bench.until(session, "ready")
    kept: dict[str, str] = {}
    for who in ("supervisor", "trainer"):
        file = folder(bench) / who
        kept[who] = file.read_text()
        words = kept[who].split()
        words[field] = "1"
        file.write_text(" ".join(words) + "\n")
    assert bench.now().state == "interrupted"
    for who, text in kept.items():
        (folder(bench) / who).write_text(text)
    stop(bench.remote, bench.layout, session)


def test_nothing_is_started_by_half_a_script(bench: Bench) -> None:
    """A line that breaks while the script is sent must not run its first half."""
    from cloudtrain.training.session import starting

    _, text = starting(
        bench.layout, kind="script", argv=["true"], env={}, python="python3", number=1, screen="x-001"
    )
    for part in range(1, 10):
        bench.remote.script(text[: len(text) * part // 10], check=False)
    assert not folder(bench).parent.exists()


def test_gpus_without_a_driver_are_not_used(bench: Bench) -> None:
    config = Config(train=Train(kind="yolo", args={"data": "x"}))
    tesla = Gpu("T4", driver="580.1")
    session = start(
        bench.remote, config, bench.layout, slug=SLUG, python="/nowhere/python", number=1, dataset_yaml=None,
        model="yolo11n.yaml", facts=facts(gpus=(tesla, Gpu("T4"))),
    )  # fmt: skip
    assert "device=0 " in (folder(bench) / "session.sh").read_text()
    bench.end(session)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Sshd]:
    """A machine without screen."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in Path("/usr/bin").iterdir():
        if not program.name.startswith("screen"):
            (tools / program.name).symlink_to(program)
    server = Sshd(tmp_path / "bare", path=str(tools)).start()
    yield server
    server.stop()


def test_without_screen_it_is_detached_all_the_same(bare: Sshd) -> None:
    layout = Layout(f"{bare.home}/run")
    Path(layout.project).mkdir(parents=True)
    with connect(bare.target) as remote:
        bench = Bench(bare, remote, layout)
        session = bench.start("echo ready; until [ -e go ]; do sleep 0.02; done; exit 5")
        assert (session.screen, session.state) == ("", "running")
    bare.drop_connections()
    with connect(bare.target) as remote:
        bench = Bench(bare, remote, layout)
        assert bench.now().state == "running"
        Path(layout.project, "go").touch()
        assert bench.end(session).exit_code == 5
        assert stop(remote, layout, bench.start("sleep 1000", number=2)).exit_code == 143


def test_screen_gets_a_place(bench: Bench, sshd: Sshd) -> None:
    """Containers and WSL have no /run/screen, and only root may make it."""
    shutil.rmtree(sshd.folder / "screens")
    (sshd.folder / "screens").write_text("in the way")
    session = bench.start("sleep 1000")
    assert session.screen == f"{SLUG}-001"
    assert (folder(bench) / "screendir").read_text().strip() == f"{sshd.home}/.screen"
    stop(bench.remote, bench.layout, session)
    assert list((sshd.home / ".screen").iterdir()) == []


@pytest.mark.parametrize("term", ["xterm-256color", "a-terminal-nobody-knows"])
def test_attach_shows_the_output_and_ctrl_c_reaches_the_training(bench: Bench, sshd: Sshd, term: str) -> None:
    session = bench.start("trap 'echo caught; exit 9' INT; echo ready-to-go; while :; do sleep 0.02; done")
    bench.until(session, "ready-to-go")
    ours, theirs = pty.openpty()
    argv = openssh.ssh(sshd.target, *attach_command(session), tty=True)
    client = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": term}
    )
    os.close(theirs)
    seen = b""
    while b"ready-to-go" not in seen:
        seen += os.read(ours, 4096)
    os.write(ours, b"\x03")
    ended = bench.end(session)
    client.wait(10)
    os.close(ours)
    assert ended.exit_code == 9
    assert bench.log(session) == "ready-to-go\ncaught\n"
