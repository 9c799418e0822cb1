"""shellcheck for every script as it is sent to a machine: `python -m tests.lint_scripts`.

Templates are rendered by the code that sends them, for every machine and configuration
of tests/bootstrap/cases.py, so no sample values can go stale here. A template that
nothing renders is an error.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from cloudtrain import render
from cloudtrain.bootstrap import steps
from cloudtrain.bootstrap.scripts import apply_script, check_script
from cloudtrain.models.config import Config, Train
from cloudtrain.models.run import Layout
from cloudtrain.paths import shipped
from cloudtrain.training import build_command
from cloudtrain.training.session import Container, starting
from cloudtrain.workflows.imaging import cleaning
from tests.bootstrap.cases import CONFIGS, LAYOUT, MACHINES

LIBRARIES = {
    "push": ("push-lib.sh",),
    "dataset": ("told-lib.sh", "dataset-lib.sh"),
    "project": ("told-lib.sh",),
    "session": ("session-lib.sh",),
    "service": ("session-lib.sh",),
    "own": ("session-lib.sh",),
}
ALONE = ("session-attach.sh", "dataset-yaml.sh", "dataset-there.sh")
"""Sent without the library of its kin."""


def main() -> int:
    """Print shellcheck's findings; return the exit code."""
    texts = {**bootstrap_scripts(), **session_scripts(), **plain_scripts()}
    unused = sorted(templates() - rendered())
    for name in unused:
        print(f"templates/{name}: nothing renders it", file=sys.stderr)  # noqa: T201
    code = shellcheck(texts)
    print(f"shellcheck: {len(texts)} scripts, {len(templates())} templates")  # noqa: T201
    return code or int(bool(unused))


def bootstrap_scripts() -> dict[str, str]:
    """Return every distinct check and apply of every step, what carries them, and what undoes a machine."""
    found: dict[str, str] = {cleaning("/home/some user", ("s3cret",)): "clean"}
    for machine, facts in MACHINES.items():
        for name, config in CONFIGS.items():
            every = steps(config, facts, LAYOUT)
            found.setdefault(check_script(every), f"check {machine} {name}")
            for step in every:
                found.setdefault(step.apply, f"{step.name} {machine} {name}")
                found.setdefault(apply_script(step, LAYOUT), f"apply {step.name} {machine} {name}")
    return {name: text for text, name in found.items()}


def session_scripts() -> dict[str, str]:
    """Return supervisor and start of each kind of training."""
    layout = Layout("/home/o'hara/a b")
    found: dict[str, str] = {}
    for kind in ("yolo", "yolov5", "script"):
        config = Config(train=Train(kind=kind, command="echo 'x y'"))
        run_dir, python = layout.run_dir(1), "/env/bin/python"
        argv, env = build_command(
            config, layout, python=python, run_dir=run_dir, dataset_yaml="/d.yaml", model="m.pt", gpus=0
        )
        supervisor, start = starting(
            layout,
            kind=kind,
            argv=argv,
            env=env,
            python=python,
            number=1,
            screen="s-001",
            guard={"state": "/x"},
        )
        found |= {f"supervisor {kind}": supervisor, f"start {kind}": start}
        container = Container("ct-s-001", ("--init", "image"), ("HOME",), ("python3", "-c", "x y"), "/h")
        found[f"container {kind}"], _ = starting(
            layout,
            kind=kind,
            argv=argv,
            env=env,
            python=python,
            number=1,
            screen="s-001",
            container=container,
        )
    return found


def plain_scripts() -> dict[str, str]:
    """Return the scripts without values, each behind the library it is sent with."""
    folder = shipped("templates")
    found: dict[str, str] = {}
    for path in folder.glob("*.sh"):
        before = () if path.name in ALONE else LIBRARIES.get(path.name.split("-", 1)[0], ())
        texts = [(folder / library).read_text() for library in before if library != path.name]
        found[path.name] = "".join([*texts, path.read_text()])
    return found


def templates() -> set[str]:
    """Return the names of all shell templates."""
    return {path.name for path in shipped("templates").glob("*.sh.j2")}


def rendered() -> set[str]:
    """Return the names of the templates that were rendered in this process."""
    cache = render._environment().cache  # pyright: ignore[reportPrivateUsage] - jinja knows what it loaded
    return {name for _, name in cache} if cache else set()


def shellcheck(texts: dict[str, str]) -> int:
    """Run shellcheck once over all of them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            Path(folder, f"{name.replace('/', '-')}.sh").write_text(text)
        names = sorted(path.name for path in Path(folder).iterdir())
        command = ["shellcheck", "-s", "bash", "-f", "gcc", *names]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
