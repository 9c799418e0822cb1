"""Everything that is sent to a machine is clean for shellcheck, whatever it was made from."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from cloudtrain.bootstrap import Step, steps
from cloudtrain.bootstrap.scripts import apply_script, check_script
from cloudtrain.paths import shipped
from tests.bootstrap.cases import CONFIGS, LAYOUT, MACHINES

PAIRS = list(itertools.product(MACHINES, CONFIGS))


def all_steps(machine: str, config: str) -> tuple[Step, ...]:
    return steps(CONFIGS[config], MACHINES[machine], LAYOUT)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Every distinct script: the applies alone, as the machine runs them, and what carries them."""
    texts: dict[str, str] = {}
    for machine, config in PAIRS:
        for step in all_steps(machine, config):
            texts.setdefault(step.apply, f"{step.name}-{machine}-{config}")
            texts.setdefault(check_script((step,)), f"check-{step.name}-{machine}-{config}")
        if machine == "t4":
            whole = all_steps(machine, config)
            texts.setdefault(check_script(whole), f"check-{config}")
            texts.update({apply_script(step, LAYOUT): f"apply-{step.name}-{config}" for step in whole})
    folder = tmp_path_factory.mktemp("scripts")
    for text, name in texts.items():
        (folder / f"{name}.sh").write_text(text)
    return tuple(folder.iterdir())


def test_shellcheck(scripts: tuple[Path, ...]) -> None:
    names = [str(path) for path in scripts]
    done = subprocess.run(
        ["shellcheck", "-s", "bash", "-f", "gcc", *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[:4000]


def test_every_template_is_used(scripts: tuple[Path, ...]) -> None:
    rendered = {path.name.split("-", 1)[0] for path in scripts}
    on_disk = {path.name for path in shipped("templates").glob("step-*.sh.j2")}
    assert len(on_disk) >= 12
    assert {"cloud", "apt", "base", "driver", "uv", "miniconda", "environment", "torch"} <= rendered
    assert {"trainer", "requirements", "packages", "opencv", "gpu"} <= rendered


@pytest.mark.parametrize(("machine", "config"), PAIRS)
def test_steps_fit_together(machine: str, config: str) -> None:
    from cloudtrain.bootstrap.steps import NAMES

    found = all_steps(machine, config)
    names = [step.name for step in found]
    assert names == [name for name in NAMES if name in names]
    for step in found:
        assert set(step.needs) <= set(NAMES)
        assert all(NAMES.index(need) < NAMES.index(step.name) for need in step.needs)
        assert "s3cret" not in step.check + step.reason + step.by_hand
        assert step.reason
