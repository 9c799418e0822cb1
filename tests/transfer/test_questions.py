"""What is asked before the code goes, and how the answer is kept."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.models.config import Config
from cloudtrain.transfer.push import project_tree
from cloudtrain.transfer.questions import ask_about


def paths(base: Path) -> set[str]:
    return {entry.path for entry in project_tree(Config(), base).entries}


def test_asked_once_and_remembered(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("pass")
    (tmp_path / "sub").mkdir()
    for name in (".env", "sub/.env.local", "key.pem"):
        (tmp_path / name).write_text("x")
    with (tmp_path / "a [big] file.bin").open("wb") as file:
        file.truncate(1 << 30)
    assert paths(tmp_path) == {"train.py"}
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return "sub/" not in question

    ask_about(Config(), tmp_path, ask)
    assert len(asked) == 3
    assert not any("key.pem" in question for question in asked), "keys are never asked about"
    assert paths(tmp_path) == {"train.py", ".env", "a [big] file.bin", ".cloudtrainignore"}
    ask_about(Config(), tmp_path, ask)
    assert len(asked) == 3, "the answer is kept"
