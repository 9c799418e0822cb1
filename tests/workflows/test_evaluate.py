"""Finding what to evaluate; the measuring itself needs torch and is proven by `make demo`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cloudtrain.errors import CloudtrainError, UsageError
from cloudtrain.events import Silent
from cloudtrain.journal.folder import RunFolder, create
from cloudtrain.workflows.evaluate import evaluate, evaluate_run

WITH_TORCH = importlib.util.find_spec("ultralytics") is not None


def run_with(project: Path, *names: str, run: str = "digits") -> RunFolder:
    folder = create(name=run, owner="0" * 12, provider="sandbox", region="us-east-1", project=project)
    for name in names:
        path = folder.artifacts / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no checkpoint")
    return folder


def evaluated(project: Path, *, name: str | None = None) -> str:
    """The message that says which files were chosen: neither is a model."""
    with pytest.raises(CloudtrainError) as caught:
        evaluate_run(project, name=name, weights=None, data=None, reporter=Silent())
    return caught.value.message


def test_nothing_at_home(tmp_path: Path) -> None:
    assert "no best.pt" in evaluated(tmp_path)
    run_with(tmp_path)
    assert "no best.pt" in evaluated(tmp_path)
    assert "run `other`" in evaluated(tmp_path, name="other")


def test_it_must_be_known_on_what(tmp_path: Path) -> None:
    run_with(tmp_path, "001/weights/best.pt")
    assert "not known what to evaluate on" in evaluated(tmp_path)


def test_the_configured_dataset_is_meant(tmp_path: Path) -> None:
    run_with(tmp_path, "001/weights/best.pt")
    (tmp_path / "cloudtrain.yaml").write_text("dataset: {path: nowhere/data.yaml}\n")
    assert f"`{tmp_path}/nowhere/data.yaml` does not exist" in evaluated(tmp_path)


def test_without_the_file_the_run_remembers(tmp_path: Path) -> None:
    folder = run_with(tmp_path, "001/weights/best.pt")
    folder.save_config({"name": "digits", "dataset": {"path": "kept/data.yaml"}})
    assert f"`{tmp_path}/kept/data.yaml` does not exist" in evaluated(tmp_path)


@pytest.mark.skipif(WITH_TORCH, reason="ultralytics is installed")
def test_the_extra_is_named_when_it_is_missing(tmp_path: Path) -> None:
    for name in ("best.pt", "data.yaml"):
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match="ultralytics") as caught:
        evaluate(tmp_path / "best.pt", tmp_path / "data.yaml")
    assert "cloudtrain[train]" in caught.value.hint


@pytest.mark.skipif(not WITH_TORCH, reason="needs the extra `train`")
def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("best.pt", "data.yaml"):
        (tmp_path / name).write_text("")
    with pytest.raises(CloudtrainError, match="could not evaluate"):
        evaluate(tmp_path / "best.pt", tmp_path / "data.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "data.yaml"]
