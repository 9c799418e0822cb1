"""Sessions in containers, of a real Docker engine: the same as without, seen from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.models import container
from cloudtrain.models.config import Config, Docker, Train
from cloudtrain.models.machine import Gpu
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Session
from cloudtrain.ssh.remote import connect
from cloudtrain.training import start, stop
from tests.support.engine import IMAGE, Engine, engine
from tests.support.sshd import Sshd
from tests.training.conftest import SLUG, Bench, facts, gone

SAVE = (
    "python3 -c \"import zipfile; z = zipfile.ZipFile('last.part', 'w'); z.writestr('a', 'b' * 99); z.close()\"; "
    "mv last.part last.pt"
)


@pytest.fixture(scope="module")
def docker() -> Generator[Engine]:
    with engine() as made:
        yield made


@pytest.fixture
def boxed(tmp_path: Path, docker: Engine) -> Generator[Bench]:
    """A machine with an engine, and sessions in its containers."""
    sshd = Sshd(tmp_path / "machine", path=docker.path).start()
    layout = Layout(f"{sshd.home}/cloudtrain/{SLUG}")
    Path(layout.project).mkdir(parents=True)
    try:
        with connect(sshd.target) as remote:
            yield Bench(sshd, remote, layout)
    finally:
        docker.clear()
        sshd.stop()


def config(command: str, **docker: object) -> Config:
    values: dict[str, object] = {"image": IMAGE, "mounts": ("/usr:/usr:ro",), **docker}
    return Config(
        runtime="docker",
        docker=Docker(**values),  # pyright: ignore[reportArgumentType]
        train=Train(kind="script", command=command, outputs=("*.pt",)),
    )


def begin(bench: Bench, command: str, *, number: int = 1, **docker: object) -> Session:
    return start(
        bench.remote, config(command, **docker), bench.layout, slug=SLUG, python="python3", number=number,
        dataset_yaml=None, model="", facts=facts(),
    )  # fmt: skip


def box(number: int = 1) -> str:
    return f"ct-{SLUG}-{number:03d}"


def test_it_trains_inside_and_is_seen_outside(boxed: Bench, docker: Engine) -> None:
    session = begin(
        boxed,
        'echo "in $(cat /proc/1/comm) as $(id -u) at $PWD"; until [ -e go ]; do sleep 0.02; done; echo done',
    )
    assert (session.state, session.screen) == ("running", f"{SLUG}-001")
    boxed.until(session, "in ")
    assert docker.call("ps", "--format", "{{.Names}}").split() == [box()]
    line = boxed.log(session).splitlines()[0]
    assert line == f"in docker-init as {os.geteuid()} at {boxed.layout.project}"
    assert not gone(boxed.pid(session, "trainer"))
    Path(boxed.layout.project, "go").touch()
    ended = boxed.end(session)
    assert (ended.state, ended.exit_code) == ("finished", 0)
    assert boxed.log(session).splitlines()[-1] == "done"
    assert docker.call("ps", "--all", "--quiet") == ""


def test_a_failure_keeps_its_exit_code_and_its_last_words(boxed: Bench) -> None:
    ended = boxed.end(begin(boxed, "echo it broke >&2; exit 3"))
    assert (ended.state, ended.exit_code) == ("failed", 3)
    assert boxed.log(ended) == "it broke\n"


def test_an_image_without_the_interpreter_says_so(boxed: Bench, docker: Engine) -> None:
    ended = boxed.end(begin(boxed, "true", python="/opt/nothing/python"))
    assert (ended.state, ended.exit_code) == ("failed", 127)
    assert "/opt/nothing/python" in boxed.log(ended)
    assert docker.call("ps", "--all", "--quiet") == ""


def test_limits_are_what_the_machine_was_given(boxed: Bench, docker: Engine) -> None:
    session = begin(boxed, "df -k /dev/shm; until [ -e go ]; do sleep 0.02; done", memory="300m")
    boxed.until(session, "/dev/shm")
    asked = "{{.HostConfig.Memory}} {{.HostConfig.ShmSize}} {{.HostConfig.NetworkMode}}"
    said = docker.call("inspect", "--format", asked, box()).split()
    assert said == [str(300 << 20), str(150 << 20), "host"]
    assert str(150 * 1024) in boxed.log(session)
    stop(boxed.remote, boxed.layout, session)
    assert docker.call("ps", "--all", "--quiet") == ""


def test_stop_ends_what_a_shell_started_inside(boxed: Bench, docker: Engine) -> None:
    session = begin(boxed, "sleep 300 & echo here; sleep 300; echo never")
    boxed.until(session, "here")
    ended = stop(boxed.remote, boxed.layout, session, grace_s=20)
    assert ended.state == "failed"
    assert ended.exit_code == 143
    assert "never" not in boxed.log(session)
    assert docker.call("ps", "--all", "--quiet") == ""


def test_killed_it_goes_on_in_a_new_container_from_its_checkpoint(boxed: Bench, docker: Engine) -> None:
    command = f'echo "resume=$CLOUDTRAIN_RESUME"; [ -n "$CLOUDTRAIN_RESUME" ] && exit 0; {SAVE}; echo saved; sleep 300'
    session = begin(boxed, command)
    boxed.until(session, "saved")
    boxed.remote.script(
        'for _ in {1..1500}; do [ -s "$1/secured" ] && exit; sleep 0.02; done; exit 1',
        boxed.layout.session(1),
    )
    os.kill(boxed.pid(session, "trainer"), signal.SIGKILL)
    ended = boxed.end(session)
    assert (ended.state, ended.exit_code) == ("finished", 0)
    assert f"resume={boxed.layout.secured(1)}/00001-last.pt" in boxed.log(session)
    assert "killed by signal 9" in boxed.log(session)
    assert docker.call("ps", "--all", "--quiet") == ""


def test_memory_that_is_used_up_is_said(boxed: Bench) -> None:
    hungry = "python3 -c 'x = bytearray(400 << 20)'; exit $?"
    ended = boxed.end(begin(boxed, hungry, memory="64m"))
    assert ended.state == "failed"
    assert ended.exit_code == 137
    assert "raise docker.memory" in boxed.log(ended)


def test_it_outlives_its_supervisor_and_is_found_again(boxed: Bench, docker: Engine) -> None:
    session = begin(boxed, "echo here; until [ -e go ]; do sleep 0.02; done; echo done; exit 4")
    boxed.until(session, "here")
    os.kill(boxed.pid(session, "supervisor"), signal.SIGKILL)
    assert boxed.now().state == "running"
    before = docker.call("ps", "--quiet")
    # What a guard does for an interrupted session; here the trainer is there, so nothing happens yet.
    boxed.remote.run(f"bash {boxed.layout.session(1)}/resume.sh")
    assert docker.call("ps", "--quiet") == before
    Path(boxed.layout.project, "go").touch()
    boxed.remote.script(
        'for _ in {1..500}; do kill -0 "$1" || exit 0; sleep 0.02; done', str(boxed.pid(session, "trainer"))
    )
    boxed.remote.run(f"bash {boxed.layout.session(1)}/resume.sh")
    assert boxed.end(boxed.now()).exit_code == 4
    assert boxed.log(session).count("here") == 1
    assert docker.call("ps", "--all", "--quiet") == ""


def test_an_engine_that_is_started_anew_ends_no_training(boxed: Bench, docker: Engine) -> None:
    again = "[ -e once ] && { echo again; exit 0; }; touch once; echo here; sleep 300"
    session = begin(boxed, again)
    boxed.until(session, "here")
    docker.stop()
    docker.start()
    ended = boxed.end(session)
    assert (ended.state, ended.exit_code) == ("finished", 0), boxed.log(session)
    assert boxed.log(session).splitlines()[-1] == "again"
    assert docker.call("ps", "--all", "--quiet") == ""


GPUS = (Gpu("Tesla T4", 15360, "580.1", (7, 5)),) * 4


def test_the_words_that_are_built() -> None:
    layout = Layout(f"/home/me/cloudtrain/{SLUG}")
    machine = replace(facts(gpus=GPUS), memory_mib=16_000)
    words = " ".join(container.options(config("x"), machine, layout))
    assert "--gpus all" in words
    assert "--memory 14400m" in words
    assert "--shm-size 7200m" in words
    assert f"--volume {layout.root}:{layout.root} --volume /usr:/usr:ro" in words
    bare = " ".join(container.options(config("x", shm_size="host", memory="none"), facts(), layout))
    assert "--ipc host" in bare
    assert "--gpus" not in bare
    assert "--memory" not in bare
    assert (
        container.image_of(config("x", image=None, dockerfile="Dockerfile"), layout) == f"cloudtrain/{SLUG}"
    )


@pytest.mark.parametrize(("text", "mib"), [("8g", 8192), ("512m", 512), ("1048576", 1), ("2097152b", 2)])
def test_sizes_as_docker_spells_them(text: str, mib: int) -> None:
    assert container.size_mib(text) == mib
