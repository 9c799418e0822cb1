"""What cannot be sent is told before anything is launched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtrain.models.config import Config, Dataset, Project, Train
from cloudtrain.workflows.checks import check_project

PLAIN = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Root reads everything; without these two rights it is like everybody."""

CHECK = """
import sys
from pathlib import Path
from cloudtrain.errors import CloudtrainError
from cloudtrain.models.config import Config, Dataset, Train
from cloudtrain.workflows.checks import check_project
config = Config(dataset=Dataset(path="data"), train=Train(kind="script", command="true"))
try:
    check_project(config, Path(sys.argv[1]), launches=True)
except CloudtrainError as error:
    print(error.message, error.hint, sep="\\n")
"""


@pytest.mark.parametrize(
    ("closed", "says", "hint"),
    [
        ("none", [], ""),
        ("src", ["cannot read the folder", "src"], "project.exclude"),
        ("src/a.py", ["cannot read", "src/a.py"], "project.exclude"),
        ("data/a.csv", ["cannot read", "data/a.csv"], "out of the dataset"),
        ("data/sub", ["cannot read the folder", "data/sub"], ""),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, closed: str, says: list[str], hint: str) -> None:
    for name in ("src/a.py", "data/a.csv", "data/sub/b.csv", "none"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / closed).chmod(0o644 if closed == "none" else 0)
    plain = PLAIN if os.geteuid() == 0 else ()
    said = subprocess.run(
        [*plain, sys.executable, "-c", CHECK, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / closed).chmod(0o755)
    message, _, told = said.partition("\n")
    assert bool(said) == bool(says)
    assert all(word in message for word in says)
    assert hint in told


def test_what_does_not_lie_here_is_not_looked_for(tmp_path: Path) -> None:
    config = Config(
        project=Project(git="https://x.example/a", path="absent"),
        dataset=Dataset(command="true"),
        train=Train(kind="script", command="true"),
    )
    source = check_project(config, tmp_path, launches=True)
    assert source is not None
    assert source.kind == "command"
