"""From a pushed project to one from git, and back: what the training wrote there stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloudtrain.events import Silent
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.push import differs, push_project
from cloudtrain.transfer.scripts import script
from tests.transfer.test_push import contents


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    there = tmp_path / "repository"
    (there / "lib").mkdir(parents=True)
    (there / "train.py").write_text("cloned")
    (there / "lib" / "new\nline.py").write_text("cloned")
    (there / "link.py").symlink_to("train.py")
    subprocess.run(["git", "init", "-q", str(there)], check=True)
    commit(there)
    return there


def commit(there: Path) -> None:
    own = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*own, *words], cwd=there, check=True)


def clone(line: Remote, layout: Layout, repository: Path) -> list[str]:
    args = (layout.project, f"file://{repository}", "")
    said = line.script(script("told-lib", "project-clone"), *args).stdout.splitlines()
    return [one for one in said[:-1] if not one.startswith("@")]


def there(layout: Layout) -> dict[str, bytes | str]:
    """What lies in the project folder, without git's own."""
    return {
        name: data for name, data in contents(Path(layout.project)).items() if not name.startswith(".git")
    }


def pushed(base: Path, line: Remote, layout: Layout) -> None:
    for name in ("old.py", "train.py", "lib/old.py", "only/here.py"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("pushed")
    (base / "empty").mkdir(exist_ok=True)
    push_project(line, Config(), base, layout, Silent())


def wrote(layout: Layout, *names: str) -> None:
    for name in names:
        path = Path(layout.project) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("weights")


def test_a_clone_keeps_what_the_training_wrote(
    line: Remote, layout: Layout, base: Path, repository: Path
) -> None:
    pushed(base, line, layout)
    wrote(layout, "out/epoch40.pt", "only/log.txt", "link.py")
    folder = Path(layout.project).stat().st_ino
    assert clone(line, layout, repository) == ["stays 3", "aside link.py.cloudtrain-kept"]
    code = contents(repository)
    code = {name: data for name, data in code.items() if not name.startswith(".git")}
    mine = dict.fromkeys(("out/epoch40.pt", "only/log.txt", "link.py.cloudtrain-kept"), b"weights")
    assert Path(layout.project).stat().st_ino == folder, "a training that runs there stands in it"
    found = there(layout)
    assert {name: found.get(name) for name in mine} == mine
    assert {
        name: data for name, data in found.items() if name not in mine and name not in ("out", "only")
    } == code
    assert clone(line, layout, repository) == []
    assert there(layout) == found


def test_a_commit_does_not_overwrite_what_the_training_wrote(
    line: Remote, layout: Layout, repository: Path
) -> None:
    assert clone(line, layout, repository) == []
    wrote(layout, "out", "best.pt/a.txt", "train.py")
    (repository / "out").mkdir()
    for name in ("out/readme.txt", "best.pt"):
        (repository / name).write_text("cloned")
    commit(repository)
    assert clone(line, layout, repository) == ["aside best.pt.cloudtrain-kept", "aside out.cloudtrain-kept"]
    project = Path(layout.project)
    assert (project / "best.pt.cloudtrain-kept" / "a.txt").read_text() == "weights"
    assert (project / "out.cloudtrain-kept").read_text() == "weights"
    assert [(project / name).read_text() for name in ("out/readme.txt", "best.pt", "train.py")] == [
        "cloned"
    ] * 3


def test_a_push_after_a_clone_leaves_nothing_of_it(
    line: Remote, layout: Layout, base: Path, repository: Path
) -> None:
    clone(line, layout, repository)
    wrote(layout, "out/epoch40.pt")
    pushed(base, line, layout)
    found = contents(Path(layout.project))
    assert found.pop("out/epoch40.pt") == b"weights"
    found.pop("out", None)
    assert found == contents(base)
    assert differs(line, Config(), base, layout) == ()
    assert clone(line, layout, repository) == ["stays 1"]
    assert (Path(layout.project) / "train.py").read_text() == "cloned"
    assert not (Path(layout.project) / "old.py").exists()


def test_a_clone_whose_checkout_broke_goes_on(line: Remote, layout: Layout, repository: Path) -> None:
    clone(line, layout, repository)
    git = Path(layout.project) / ".git"
    (git / "index").rename(git / "index.lock")
    assert clone(line, layout, repository) == []
    assert (Path(layout.project) / "train.py").read_text() == "cloned"
