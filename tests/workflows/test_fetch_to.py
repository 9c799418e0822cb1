"""`fetch-weights --to`: the checkpoints under names of the user's."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.models.training import Artifact, Session
from cloudtrain.workflows.fetch import Fetched, copy_to


def fetched(home: Path, *names: str) -> Fetched:
    """Return checkpoints of these names; each holds its own."""
    artifacts: list[Artifact] = []
    for name in names:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        artifacts.append(Artifact("best", path, f"/far/{name}", len(name), "", complete=True))
    return Fetched("r", Session(1, "s", "finished", "/far", "/far/log"), str(home), tuple(artifacts))


def copied(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def test_names_stay_short_where_they_can(tmp_path: Path) -> None:
    copy_to(fetched(tmp_path / "home", "weights/best.pt", "weights/last.pt"), tmp_path / "mine")
    assert copied(tmp_path / "mine") == {"best.pt": "weights/best.pt", "last.pt": "weights/last.pt"}


def test_equal_names_keep_their_folders(tmp_path: Path) -> None:
    """Also those that some file systems take for equal."""
    names = "outputs/a/best.pt", "outputs/b/Best.pt", "outputs/a/last.pt"
    copy_to(fetched(tmp_path / "home", *names), tmp_path / "mine")
    short = {"last.pt": names[2], names[0]: names[0], names[1]: names[1]}
    assert copied(tmp_path / "mine") == short
