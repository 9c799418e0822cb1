"""`train.gpus` in each of its forms, and what containers and searches ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.config import load
from cloudtrain.errors import ConfigError


def read(folder: Path, text: str, environ: dict[str, str] | None = None) -> object:
    path = folder / "cloudtrain.yaml"
    path.write_text("name: x\n" + text)
    return load(path, environ=environ or {})


@pytest.mark.parametrize(
    ("given", "meant"), [("all", "all"), ("2", "2"), ("[0, 1]", "[0, 1]"), ("[1]", "[1]")]
)
def test_gpus(tmp_path: Path, given: str, meant: str) -> None:
    assert read(tmp_path, f"train: {{gpus: {given}}}").train.gpus == meant  # pyright: ignore
    assert read(tmp_path, "", {"CLOUDTRAIN_TRAIN_GPUS": given}).train.gpus == meant  # pyright: ignore


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {gpus: some}", "train.gpus"),
        ("train: {gpus: [a]}", "train.gpus"),
        ("train: {gpus: 2, args: {device: 0}}", "say the same"),
        ("sweep: {trials: 3}\ntrain: {kind: script, command: x}", "a script has none"),
        ("sweep: {trials: 0}", "sweep.trials"),
        ("runtime: docker", "docker.image"),
        ("runtime: docker\ndocker: {image: a, dockerfile: b}", "give one"),
        ("runtime: docker\ndocker: {dockerfile: ../b}", "in the project folder"),
        ("runtime: docker\ndocker: {image: '-v'}", "cannot be"),
        ("docker: {memory: lots}", "docker.memory"),
        ("docker: {shm_size: 8 g}", "docker.shm_size"),
        ("docker: {mounts: [here]}", "docker.mounts[0]"),
        ("runtime: docker\ndocker: {image: a}\nenvironment: {packages: [x]}", "belongs into its image"),
    ],
)
def test_what_cannot_be_is_said_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert any(said in problem.message for problem in caught.value.problems)
