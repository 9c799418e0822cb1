"""Real steps on a real machine: environments made and filled from an index served here."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.bootstrap import converge, environment_python, on_demand, steps
from cloudtrain.bootstrap.environment import environment_steps
from cloudtrain.bootstrap.step import Step
from cloudtrain.errors import RefusedError, StepError
from cloudtrain.events import Silent, Timeline
from cloudtrain.facts import gather
from cloudtrain.models.config import Config, Environment, Mirrors, Train
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from tests.bootstrap.mirror import installer, served, wheel
from tests.support.sshd import Sshd

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}") or shutil.which("uv")
SCRIPT = Train(kind="script", command="true")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mirror"
    made.mkdir()
    wheel(made, "cloudtrain-tiny", "1.0")
    wheel(made, "cloudtrain-tiny", "1.1")
    return made


@pytest.fixture
def index(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


@pytest.fixture
def layout(sshd: Sshd) -> Layout:
    return Layout(f"{sshd.home}/cloudtrain/a run-1")


@pytest.fixture
def found(remote: Remote) -> Facts:
    # No GPU and no cloud-init, whatever the host of this test has.
    return replace(gather(remote), uv=UV, gpus=(), cloud_init=False, conda=None)


def go(remote: Remote, layout: Layout, chosen: tuple[Step, ...]) -> dict[str, str]:
    return {r.name: r.outcome for r in converge(remote, chosen, layout, Timeline(Silent()))}


def version(remote: Remote, python: str, name: str = "cloudtrain_tiny") -> str:
    code = f"import {name}; print({name}.__version__)"
    return remote.script('exec "$1" -c "$2"', python, code).stdout.strip()


def small(manager: str, index: str, **more: str) -> Config:
    environment = Environment(
        manager=manager,  # pyright: ignore[reportArgumentType]
        python="3",
        torch="none",
        packages=("cloudtrain-tiny==1.0",),
    )
    return Config(
        environment=environment, train=SCRIPT, mirrors=Mirrors(package_index=f"{index}/simple", **more)
    )


@pytest.mark.parametrize("manager", ["uv", "venv"])
def test_an_environment_and_its_packages(
    manager: str, remote: Remote, layout: Layout, found: Facts, index: str
) -> None:
    config = small(manager, index)
    first = go(remote, layout, steps(config, found, layout))
    assert (first["environment"], first["packages"], first["base"]) == ("changed", "changed", "satisfied")
    python = environment_python(config, found, layout)
    assert version(remote, python) == "1.0"
    assert set(go(remote, layout, steps(config, found, layout)).values()) == {"satisfied"}

    newer = replace(config, environment=replace(config.environment, packages=("cloudtrain-tiny>1.0",)))
    again = go(remote, layout, steps(newer, found, layout))
    assert [name for name, outcome in again.items() if outcome == "changed"] == ["packages"]
    assert version(remote, python) == "1.1"


@pytest.mark.parametrize("broken", ["interpreter", "package", "mark", "half made"])
def test_what_is_broken_is_repaired(
    broken: str, remote: Remote, layout: Layout, found: Facts, index: str
) -> None:
    config = small("uv", index)
    go(remote, layout, steps(config, found, layout))
    env = Path(layout.env)
    match broken:
        case "interpreter":
            (env / "bin/python").unlink()
        case "package":
            shutil.rmtree(next(env.glob("lib/python3*/site-packages/cloudtrain_tiny-*.dist-info")))
        case "mark":
            (env / ".cloudtrain/packages").unlink()
        case _:
            shutil.rmtree(env)
            (env / "bin").mkdir(parents=True)
    assert "changed" in go(remote, layout, steps(config, found, layout)).values()
    assert version(remote, environment_python(config, found, layout)) == "1.0"
    assert set(go(remote, layout, steps(config, found, layout)).values()) == {"satisfied"}


def test_a_python_that_is_not_there_is_said(remote: Remote, layout: Layout, found: Facts, index: str) -> None:
    config = small("venv", index)
    config = replace(config, environment=replace(config.environment, python="3.99"))
    with pytest.raises(StepError, match=r"there is no Python 3\.99 on the machine") as caught:
        go(remote, layout, steps(config, found, layout))
    assert "environment.manager" in caught.value.message


def test_requirements_follow_the_file(remote: Remote, layout: Layout, found: Facts, index: str) -> None:
    config = small("uv", index)
    environment = replace(config.environment, packages=(), requirements="sub/requirements.txt")
    config = replace(config, environment=environment)
    with pytest.raises(StepError, match="is not in the project"):
        go(remote, layout, steps(config, found, layout))
    file = Path(layout.project, "sub/requirements.txt")
    file.parent.mkdir(parents=True)
    file.write_text("-r more.txt\n")
    (file.parent / "more.txt").write_text("cloudtrain-tiny==1.0\n")
    assert go(remote, layout, steps(config, found, layout))["requirements"] == "changed"
    assert go(remote, layout, steps(config, found, layout))["requirements"] == "satisfied"
    file.write_text("cloudtrain-tiny==1.1\n")
    assert go(remote, layout, steps(config, found, layout))["requirements"] == "changed"
    assert version(remote, environment_python(config, found, layout)) == "1.1"


def trainers(folder: Path) -> None:
    """Stand-ins of the trainer's wheels, bound to each other as the real ones are."""
    for torch, vision in (
        ("2.15.0", "0.29.2"),
        ("2.16.0", "0.30.0"),
        ("2.10.0", "0.25.0"),
        ("2.7.1", "0.22.1"),
    ):
        wheel(folder, "torch", torch)
        wheel(folder, "torchvision", vision, needs=(f"torch=={torch}",))
    wheel(folder, "opencv-python", "5.0.0.1")
    wheel(folder, "opencv-python-headless", "5.0.0.1")
    for name in ("tensorboard", "cloudpickle"):
        wheel(folder, name, "4.0")
    wheel(folder, "ultralytics", "8.4.190", needs=("torch>=1.8", "torchvision", "opencv-python"))


def test_the_whole_road_to_a_trainer(
    remote: Remote, layout: Layout, found: Facts, folder: Path, index: str
) -> None:
    trainers(folder)
    config = Config(
        environment=Environment(manager="uv", python="3"), mirrors=Mirrors(package_index=f"{index}/simple")
    )
    first = go(remote, layout, steps(config, found, layout))
    assert {first[name] for name in ("environment", "torch", "trainer")} == {"changed"}
    python = environment_python(config, found, layout)
    assert version(remote, python, "torch") == "2.15.0"  # not the newest: the newest known to fit
    assert version(remote, python, "torchvision") == "0.29.2"
    assert version(remote, python, "ultralytics") == "8.4.190"

    warm = steps(config, found, layout)
    begun = time.monotonic()
    assert set(go(remote, layout, warm).values()) == {"satisfied"}
    assert time.monotonic() - begun < 1.5  # 0.1 s on an idle machine


def test_without_libgl_opencv_becomes_headless(
    remote: Remote, layout: Layout, sshd: Sshd, found: Facts, folder: Path, index: str
) -> None:
    trainers(folder)
    config = Config(
        environment=Environment(manager="uv", python="3"), mirrors=Mirrors(package_index=f"{index}/simple")
    )
    opencv = next(step for step in steps(config, found, layout) if step.name == "opencv")
    bare = replace(opencv, check=opencv.check.replace("ldconfig -p", "echo none"))
    chosen = tuple(bare if step.name == "opencv" else step for step in steps(config, found, layout))
    assert go(remote, layout, chosen)["opencv"] == "changed"
    site = next(Path(layout.env).glob("lib/python3*/site-packages"))
    assert [path.name for path in site.glob("opencv*.dist-info")] == [
        "opencv_python_headless-5.0.0.1.dist-info"
    ]
    assert go(remote, layout, chosen)["opencv"] == "satisfied"


@pytest.mark.parametrize("answers", [True, False])
def test_a_torch_index_that_does_not_answer_is_replaced(
    answers: bool, remote: Remote, layout: Layout, found: Facts, folder: Path, index: str
) -> None:
    trainers(folder)
    own = folder / "own"
    for torch, vision in (("2.14.1+cu126", "0.29.1+cu126"), ("2.15.0+cu126", "0.29.2+cu126")):
        wheel(own, "torch", torch)
        wheel(own, "torchvision", vision, needs=(f"torch=={torch}",))
    (own / "simple").rename(own / "cu126")
    v100 = gather_v100(found)
    mirrors = Mirrors(
        package_index=f"{index}/simple", torch_index=f"{index}/own" if answers else f"{index}/gone"
    )
    config = Config(environment=Environment(manager="uv", python="3"), train=SCRIPT, mirrors=mirrors)
    chosen = tuple(step for step in steps(config, v100, layout) if step.name in ("environment", "torch"))
    said = converge(remote, chosen, layout, Timeline(Silent()))[-1].detail
    python = environment_python(config, found, layout)
    assert version(remote, python, "torch") == ("2.14.1+cu126" if answers else "2.7.1")
    assert said.startswith("127.0.0.1 does not answer: PyTorch is the newest") != answers


def gather_v100(found: Facts) -> Facts:
    from tests.bootstrap.cases import MACHINES

    return replace(found, gpus=MACHINES["v100"].gpus)


def test_uv_is_installed_where_there_is_none(
    remote: Remote, layout: Layout, found: Facts, folder: Path, index: str
) -> None:
    assert UV is not None
    wheel(folder, "uv", "9999.0", script=f'#!/bin/sh\nexec "{UV}" "$@"\n')
    config = small("uv", index)
    bare = replace(found, uv=None)
    first = go(remote, layout, steps(config, bare, layout))
    assert (first["uv"], first["environment"], first["packages"]) == ("changed",) * 3
    assert gather(remote).uv in (
        f"{found.home}/.cloudtrain/bin/uv",
        shutil.which("uv", path="/usr/local/bin:/usr/bin"),
    )
    assert set(go(remote, layout, steps(config, bare, layout)).values()) == {"satisfied"}


def test_miniconda_by_a_stand_in(
    remote: Remote, layout: Layout, found: Facts, folder: Path, index: str
) -> None:
    config = small("conda", index, conda_installer=index)
    pins = {found.arch: installer(folder)}
    chosen = environment_steps(config, found, layout, installers=pins)
    assert go(remote, layout, chosen) == {"miniconda": "changed", "environment": "changed"}
    assert go(remote, layout, chosen) == {"miniconda": "satisfied", "environment": "satisfied"}
    assert gather(remote).conda
    for gone in ("bin/conda", ".whole"):  # what a killed installer leaves
        Path(found.home, ".cloudtrain/miniconda3", gone).unlink()
        assert not (gather(remote).conda or "").startswith(found.home)
        assert go(remote, layout, chosen)["miniconda"] == "changed"
    assert not list(Path(found.home, ".cloudtrain").glob("installer.*"))
    plain = replace(found, uv=None)
    packages = tuple(step for step in steps(config, plain, layout) if step.name == "packages")
    assert go(remote, layout, packages) == {"packages": "changed"}
    assert version(remote, environment_python(config, plain, layout)) == "1.0"


def test_the_password_of_a_channel_is_in_no_argument(
    remote: Remote, layout: Layout, found: Facts, folder: Path, index: str
) -> None:
    config = small("conda", index, conda_installer=index, conda_channel="https://me:s3cret@example.org/forge")
    chosen = environment_steps(config, found, layout, installers={found.arch: installer(folder)})
    assert go(remote, layout, chosen) == {"miniconda": "changed", "environment": "changed"}
    said = Path(layout.logs, "environment.log").read_text()
    assert "env create" in said
    assert "s3cret" not in said
    assert not list(Path(tempfile.gettempdir()).glob("cloudtrain-wanted*"))


@pytest.mark.parametrize("manager", ["uv", "venv"])
def test_the_token_of_a_package_is_in_no_argument(
    manager: str, remote: Remote, layout: Layout, found: Facts, index: str
) -> None:
    where = index.replace("//", "//tok3n@") + "/simple/cloudtrain-tiny/cloudtrain_tiny-1.1-py3-none-any.whl"
    config = small(manager, index)
    config = replace(
        config, environment=replace(config.environment, packages=(f"cloudtrain-tiny @ {where}",))
    )
    chosen = steps(config, found, layout)
    assert '-r "$wanted"' in next(step.apply for step in chosen if step.name == "packages")
    assert go(remote, layout, chosen)["packages"] == "changed"
    assert version(remote, environment_python(config, found, layout)) == "1.1"
    assert "tok3n" not in Path(layout.logs, "packages.log").read_text()


def test_a_mirror_of_the_builds_of_python(remote: Remote, layout: Layout, found: Facts, index: str) -> None:
    config = replace(
        small("uv", index, python_builds=f"{index}/builds/"),
        environment=Environment(manager="uv", python="3.9", torch="none"),
    )
    chosen = tuple(step for step in steps(config, found, layout) if step.name == "environment")
    with pytest.raises(StepError, match=rf"{re.escape(index)}/builds/20\d+/cpython-3\.9"):
        go(remote, layout, chosen)


def test_an_installer_with_another_checksum_is_not_run(
    remote: Remote, layout: Layout, found: Facts, folder: Path, index: str
) -> None:
    pin = replace(installer(folder), sha256="0" * 64)
    chosen = environment_steps(
        small("conda", index, conda_installer=index), found, layout, installers={found.arch: pin}
    )
    with pytest.raises(StepError, match="checksum did NOT match"):
        go(remote, layout, chosen)
    assert not Path(found.home, ".cloudtrain/miniconda3").exists()


def test_a_tool_on_demand(remote: Remote, layout: Layout, found: Facts, folder: Path, index: str) -> None:
    wheel(folder, "jupyterlab", "4.5")
    config = small("uv", index)
    go(remote, layout, steps(config, found, layout))
    assert on_demand(remote, config, found, layout, "jupyterlab").outcome == "changed"
    assert on_demand(remote, config, found, layout, "jupyterlab").outcome == "satisfied"
    own = replace(config, provider="ssh", environment=Environment(manager="existing", python="python3"))
    with pytest.raises(RefusedError, match="leaves as it is") as caught:
        on_demand(remote, own, found, layout, "jupyterlab")
    assert "pip install jupyterlab" in caught.value.hint


def test_an_existing_environment_is_used(remote: Remote, layout: Layout, found: Facts, index: str) -> None:
    config = small("uv", index)
    go(remote, layout, steps(config, found, layout))
    python = environment_python(config, found, layout)
    environment = Environment(manager="existing", python=python, torch="none", packages=("cloudtrain-tiny",))
    other = Layout(f"{found.home}/cloudtrain/other-2")
    existing = replace(config, environment=environment)
    assert set(go(remote, other, steps(existing, found, other)).values()) == {"satisfied"}
    assert environment_python(existing, found, other) == python
