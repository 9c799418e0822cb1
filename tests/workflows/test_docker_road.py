"""`runtime: docker` by the installed command, on a host with a real Docker engine."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.engine import IMAGE, Engine, engine, skeleton
from tests.support.hosts import HostRoad, listed
from tests.support.road import until
from tests.support.sshd import Sshd, stopped
from tests.training.real import ARGS, MODEL, dataset

pytestmark = pytest.mark.road

CONFIG = """\
name: {{name}}
provider: ssh
hosts: [{{host}}]
runtime: docker
docker: {{{{{image}, mounts: ["/usr:/usr:ro"{mounts}], python: {python}}}}}
{train}
"""
SCRIPT = """\
train:
  kind: script
  command: python3 train.py
  outputs: ["out/*.pt"]
"""


@pytest.fixture(scope="module")
def docker() -> Generator[Engine]:
    with engine() as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path, docker: Engine) -> Generator[Sshd]:
    with stopped(Sshd(tmp_path / "machine", path=docker.path)) as made:
        yield made
        docker.clear()


def road(
    tmp_path: Path,
    machine: Sshd,
    *,
    image: str = f"image: {IMAGE}",
    mounts: str = "",
    python: str = "python3",
    train: str = SCRIPT,
) -> HostRoad:
    config = CONFIG.format(
        image=image, mounts=mounts, python=python, train=train.replace("{", "{{").replace("}", "}}")
    )
    return HostRoad(tmp_path / "road", tmp_path / "home", host=listed(machine), config=config)


def test_an_image_that_is_there(tmp_path: Path, machine: Sshd, docker: Engine) -> None:
    way = road(tmp_path, machine)
    (way.project / "wait").touch()
    way.call("up", "-y")
    until(lambda: docker.call("ps", "--format", "{{.Names}}").startswith("ct-own-"))
    assert "nothing to change" in way.call("up", "-y").stderr
    way.call("exec", "--", "sh", "-c", "cd cloudtrain/own-*/project && touch go")
    way.wait_for_end()
    assert way.call("logs").stdout.splitlines()[-1] == "last line"
    kinds = {one["kind"] for one in way.json("fetch-weights")["result"]["artifacts"]}
    assert {"best", "last"} <= kinds
    assert "runtime: docker" in way.call("tunnel", "tensorboard", code=2).stderr
    way.call("exec", "--", "sh", "-c", "cd cloudtrain/own-*/project && rm go")
    way.call("train")
    until(lambda: docker.call("ps", "--quiet") != "")
    way.call("down", "--stop-training", "--remove")
    assert docker.call("ps", "--all", "--quiet") == ""
    assert not (machine.home / "cloudtrain").exists()


def test_a_dockerfile_of_the_project(tmp_path: Path, machine: Sshd, docker: Engine) -> None:
    way = road(tmp_path, machine, image="dockerfile: box/Dockerfile")
    box = way.project / "box"
    box.mkdir()
    (box / "root.tar").write_bytes(skeleton())
    (box / "words.txt").write_text("one")
    (box / "Dockerfile").write_text(
        "FROM scratch\nADD root.tar /\nCOPY words.txt /words.txt\nENV WHERE=inside\n"
    )
    (way.project / "train.py").write_text(
        'import os\nprint(os.environ["WHERE"], open("/words.txt").read())\n'
        + (way.project / "train.py").read_text()
    )
    way.call("up", "-y")
    way.wait_for_end()
    assert way.call("logs").stdout.splitlines()[0] == "inside one"
    assert "nothing to change" in way.call("up", "-y").stderr
    (box / "words.txt").write_text("two")
    way.call("train")
    way.wait_for_end()
    assert way.call("logs").stdout.splitlines()[0] == "inside two"
    assert "cloudtrain/own-" in docker.call("images", "--format", "{{.Repository}}")
    way.call("down", "--remove")
    assert "cloudtrain/own-" not in docker.call("images", "--format", "{{.Repository}}")


def test_an_image_that_nobody_has(tmp_path: Path, machine: Sshd) -> None:
    way = road(tmp_path, machine, image="image: 127.0.0.1:9/nobody/nothing:1")
    said = way.call("up", "-y", code=5).stderr
    assert "step `image` failed" in said
    assert "127.0.0.1:9" in said
    way.call("down")


def test_a_host_without_an_engine(
    tmp_path: Path, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory
) -> None:
    programs = tmp_path_factory.mktemp("bin")
    for folder in ("/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            link = programs / program.name
            if program.name != "docker" and not link.is_symlink():
                link.symlink_to(program)
    with stopped(Sshd(tmp_path / "poor", path=str(programs))) as poor:
        way = road(tmp_path, poor)
        assert "no Docker engine" in way.call("up", "-y", code=5).stderr  # said otherwise in a container
        way.call("down")


TRAIN = """\
train:
  kind: yolo
  model: tiny.yaml
  args: {args}
dataset: {{path: data/data.yaml}}
"""


def test_real_yolo_trains_inside_and_is_secured(tmp_path: Path, machine: Sshd, docker: Engine) -> None:
    pytest.importorskip("ultralytics")
    venv = Path(sys.prefix)
    args = {key: value for key, _, value in (word.partition("=") for word in ARGS)}
    listed_args = ", ".join(f"{key}: {value}" for key, value in {**args, "epochs": "3"}.items())
    way = road(
        tmp_path,
        machine,
        mounts=f', "{venv}:{venv}:ro"',
        python=str(venv / "bin" / "python"),
        train=TRAIN.format(args="{" + listed_args + "}"),
    )
    dataset(way.project / "data")
    (way.project / "data" / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames: [dark, light]\n"
    )
    (way.project / "tiny.yaml").write_text(MODEL)
    way.call("up", "-y")
    way.wait_for_end()
    status = way.json("status")["result"]["training"]
    assert (status["session"]["state"], status["epoch"]) == ("finished", 3), way.call("logs").stdout
    assert status["secured"]["epoch"] == 3
    artifacts = way.json("fetch-weights")["result"]["artifacts"]
    assert all(one["complete"] for one in artifacts if one["kind"] in ("best", "last"))
    owners = {path.stat().st_uid for path in (machine.home / "cloudtrain").rglob("*")}
    assert owners == {machine.home.stat().st_uid}
    way.call("down")
