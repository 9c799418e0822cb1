"""Every way in which a resumed training is known to go wrong, with the real ultralytics."""

from __future__ import annotations

import importlib.util
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from cloudtrain.training.machine.checkpoints import secured, whole
from tests.training.real import Training, dataset

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="needs the extra `train`"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 epochs, killed after its second checkpoint was secured; made once, copied to each test."""
    root = tmp_path_factory.mktemp("interrupted")
    dataset(root / "data")
    made = Training(root)
    made.kill_when(lambda: made.epoch() >= 2)
    return root


@pytest.fixture(scope="module")
def finished(interrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copied(interrupted, tmp_path_factory.mktemp("finished") / "root")
    assert Training(root).run() == 0, Training(root).text()
    return root


def copied(root: Path, to: Path) -> Path:
    """A copy whose paths are its own, but for what the checkpoint says: a run that was moved."""
    shutil.copytree(root, to)
    data = to / "data" / "data.yaml"
    data.write_text(data.read_text().replace(str(root), str(to)))
    return to


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Training:
    return Training(copied(interrupted, tmp_path / "root"))


def test_each_epoch_is_secured_with_its_sidecar(interrupted: Path) -> None:
    made = Training(interrupted)
    copies = secured(made.secured)
    assert 1 <= len(copies) <= 2
    path, known = copies[0]
    assert whole(path)
    assert made.inside(path)["epoch"] + 1 == known["epoch"] == made.epoch()
    assert known["size"] == path.stat().st_size
    assert "metrics/mAP50(B)" in known["metrics"]
    assert not path.samefile(made.weights / "last.pt")


def test_it_goes_on_where_it_was_and_finishes(finished: Path, interrupted: Path) -> None:
    done = Training(finished)
    assert done.rows() == [1, 2, 3, 4]
    after = Training(interrupted).epoch()
    assert f"going on after epoch {after} of 4" in done.text()
    assert done.inside(done.weights / "last.pt")["epoch"] == -1
    assert [known["epoch"] for _, known in secured(done.secured)] == [4, 3]


def test_a_moved_run_writes_into_its_new_folder_only(finished: Path, interrupted: Path) -> None:
    # `finished` is a moved copy of `interrupted`, and was finished there.
    assert len(Training(interrupted).rows()) < 4
    assert not list(interrupted.rglob("*/002"))
    assert Training(finished).rows() == [1, 2, 3, 4]


def test_a_finished_run_is_never_restarted(finished: Path, tmp_path: Path) -> None:
    done = Training(copied(finished, tmp_path / "root"))
    before = (done.weights / "last.pt").stat().st_mtime_ns
    assert done.run() == 0
    assert "finished before" in done.text()
    assert "coco8" not in done.text()
    assert (done.weights / "last.pt").stat().st_mtime_ns == before


def test_a_finished_checkpoint_is_not_gone_on_from(finished: Path, tmp_path: Path) -> None:
    given = Training(finished).weights / "best.pt"
    fresh = Training(tmp_path, resume_from=given)
    dataset(tmp_path / "data")
    assert fresh.run() == 1
    assert "is finished and cannot be resumed" in fresh.text()
    assert not fresh.run_dir.exists()


@pytest.mark.parametrize("left", [0, 1000, -1])
def test_a_torn_checkpoint_is_never_resumed_from(run: Training, left: int) -> None:
    last = run.weights / "last.pt"
    last.write_bytes(last.read_bytes()[: left if left >= 0 else last.stat().st_size - 1])
    assert run.run() == 0, run.text()
    assert "last.pt is torn" in run.text()
    assert run.rows() == [1, 2, 3, 4]
    assert whole(last)


def test_torn_with_nothing_secured_it_starts_again(run: Training) -> None:
    shutil.rmtree(run.secured)
    last = run.weights / "last.pt"
    last.write_bytes(last.read_bytes()[:500])
    assert run.run() == 0, run.text()
    assert "starting again" in run.text()
    assert run.rows() == [1, 2, 3, 4]


def test_a_torn_best_does_not_stay(run: Training) -> None:
    (run.weights / "best.pt").write_bytes(b"PK\x03\x04")
    assert run.run() == 0, run.text()
    assert whole(run.weights / "best.pt")


def test_an_epoch_is_not_written_twice(run: Training) -> None:
    # Killed between the row and its checkpoint, and while writing a row.
    results = run.run_dir / "results.csv"
    row = results.read_text().splitlines()[-1].split(",")
    with results.open("a") as file:
        file.write(",".join([str(int(row[0]) + 1), *row[1:]]) + "\n" + ",".join(row[:4]))
    assert run.run() == 0, run.text()
    assert run.rows() == [1, 2, 3, 4]


def test_epochs_cannot_be_changed_and_that_is_said(run: Training) -> None:
    run.epochs = 9
    assert run.run() == 0, run.text()
    assert "stays at 4 epochs" in run.text()
    assert run.rows() == [1, 2, 3, 4]


def test_killed_before_the_weights_were_finished(run: Training) -> None:
    """All epochs done, the last checkpoint not stripped: nothing is trained, and all is there."""
    run.kill_when(lambda: run.epoch() >= 4)
    if run.inside(run.weights / "last.pt")["epoch"] == -1:
        pytest.skip("it was faster")
    assert run.run() == 0, run.text()
    assert "all epochs are done" in run.text()
    assert run.inside(run.weights / "last.pt")["epoch"] == -1
    assert whole(run.weights / "best.pt")
    assert run.rows() == [1, 2, 3, 4]


def test_another_machine_goes_on_from_the_copy_that_came_along(run: Training, tmp_path: Path) -> None:
    path, known = secured(run.secured)[0]
    other = Training(tmp_path / "other", resume_from=tmp_path / "came.pt")
    shutil.copy(path, tmp_path / "came.pt")
    dataset(other.root / "data")
    assert other.run() == 0, other.text()
    assert other.rows() == list(range(known["epoch"] + 1, 5))
    assert other.run_dir.is_dir()


def test_a_secured_copy_that_lies_is_passed_over(run: Training) -> None:
    newest, known = secured(run.secured)[0]
    with zipfile.ZipFile(newest, "w") as container:
        container.writestr("nothing", "of a checkpoint")
    sidecar = newest.with_name(newest.name + ".json")
    sidecar.write_text(json.dumps({**known, "size": newest.stat().st_size}))
    (run.weights / "last.pt").unlink()
    assert run.run() == 0, run.text()
    assert run.rows() == [1, 2, 3, 4]


def test_two_workers_secure_too(run: Training, tmp_path: Path) -> None:
    """Multi-GPU training as ultralytics starts it: the class comes by name into another process."""
    import subprocess
    import sys

    code = (
        "import sys, pickle; sys.path.insert(0, sys.argv[1])\n"
        "from cloudtrain_training.yolo import securing\n"
        "from ultralytics.models.yolo.detect import DetectionTrainer\n"
        "import cloudpickle; sys.stdout.buffer.write(cloudpickle.dumps(securing(DetectionTrainer)))"
    )
    pytest.importorskip("cloudpickle")
    sent = subprocess.run([sys.executable, "-c", code, str(run.lib)], capture_output=True, check=True).stdout
    take = (
        "import sys, pickle; sys.path.insert(0, sys.argv[1])\n"
        "made = pickle.loads(sys.stdin.buffer.read()); print(made.__mro__[1].__name__, made.__mro__[2].__name__)"
    )
    got = subprocess.run(
        [sys.executable, "-c", take, str(run.lib)], input=sent, capture_output=True, check=True
    ).stdout
    assert got.decode().split() == ["Securing", "DetectionTrainer"]
    assert len(sent) < 500, "by name, not by value"
