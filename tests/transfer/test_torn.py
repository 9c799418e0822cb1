"""Files that vanish or change for a moment while they are sent, as on a disk that is pulled out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudtrain.events import Event, Progress
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.pack import PIECE, pieces, read, stream, tar
from cloudtrain.transfer.push import differs, push_project
from cloudtrain.transfer.scan import file_entry
from tests.transfer.test_push import contents


class Away:
    """A reporter that moves a file away at the first word, and back at the push's next round."""

    def __init__(self, path: Path, other: bytes | None) -> None:
        self._path, self._aside, self._other = path, path.parent.parent / "aside", other
        self.rounds = 0

    def emit(self, event: Event) -> None:
        if not isinstance(event, Progress) or self.rounds:
            return
        self.rounds += 1
        self._path.rename(self._aside)
        if self._other is not None:
            self._path.write_bytes(self._other)

    def back(self) -> None:
        if self._aside.exists():
            self._aside.replace(self._path)


@pytest.mark.parametrize("other", [None, b"other"])
@pytest.mark.parametrize("machine", ["tar"], indirect=True)
def test_a_big_file_that_is_away_for_a_moment(
    line: Remote, layout: Layout, base: Path, monkeypatch: pytest.MonkeyPatch, other: bytes | None
) -> None:
    """No piece of zeros counts, in this round or in a later push."""
    from cloudtrain.transfer.mirror import Mirror

    path = base / "big.bin"
    path.write_bytes(os.urandom(5 * PIECE))
    away = Away(path, other)
    place_all = Mirror.place_all

    def back_in_time(*args: object) -> int:
        away.back()  # so that it looks unchanged when all was sent
        return place_all(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Mirror, "place_all", staticmethod(back_in_time))
    push_project(line, Config(), base, layout, away)
    assert away.rounds == 1
    assert contents(Path(layout.project)) == contents(base)
    assert differs(line, Config(), base, layout) == ()


def test_a_file_that_is_not_as_listed_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    entry = file_entry(path, "a")
    good = bytes(tar([entry]))
    torn: set[str] = set()
    (piece,) = pieces(entry, "id", frozenset(), torn)
    assert b"".join(stream(piece)) == b"x" * 1000
    assert not torn
    os.utime(path, ns=(0, entry.mtime_ns + 1))
    assert read(entry, 0, 1000) is None
    assert bytes(tar([entry]))[136:147] == b"0" * 11 != good[136:147]
    assert len(b"".join(stream(piece))) == 1000
    assert torn == {"id"}


def test_a_file_of_1970_that_vanished_gets_another_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 0))
    entry = file_entry(path, "a")
    path.unlink()
    assert bytes(tar([entry]))[136:147] == b"%011o" % 1
