"""The journal and the run folder survive what crashes do to them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cloudtrain.errors import RefusedError, UsageError
from cloudtrain.journal import folder as runs
from cloudtrain.journal.log import Attempt, Journal, Row, brought_home, launched_machines, open_attempt


def make_run(project: Path, name: str = "digits") -> runs.RunFolder:
    return runs.create(
        name=name, owner="0123456789ab", provider="sandbox", region="us-east-1", project=project
    )


def test_rows_come_back_in_order_with_their_values(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append("attempt", token="t1", type="g4dn.xlarge", zone=None, market="spot")
    journal.append("launched", token="t1", machine="i-1")
    assert [row["event"] for row in journal.rows()] == ["attempt", "launched"]
    assert launched_machines(journal.rows()) == ("i-1",)
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_costs_that_line_only(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append("access")
    journal.append("attempt", token="t1", type="g4dn.xlarge", zone=None, market="spot")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-cut])
    journal.append("release")
    assert [row["event"] for row in journal.rows() if row["event"] != "attempt"] == ["access", "release"]


def test_an_attempt_is_open_until_its_own_answer() -> None:
    def attempt(token: str) -> dict[str, object]:
        return {"event": "attempt", "token": token, "type": "t", "zone": None, "market": "spot"}

    assert open_attempt(()) is None
    assert open_attempt((attempt("a"),)) == Attempt("a", "t", None, "spot")
    assert open_attempt((attempt("a"), {"event": "refused", "token": "a"})) is None
    assert open_attempt((attempt("a"), {"event": "launched", "token": "a", "machine": "i"})) is None
    late: tuple[Row, ...] = (
        attempt("a"),
        {"event": "refused", "token": "a"},
        attempt("b"),
        {"event": "gone", "token": "a"},
    )
    assert open_attempt(late) == Attempt("b", "t", None, "spot")


def test_a_result_is_at_home_until_anything_is_begun_anew() -> None:
    home: Row = {"event": "home", "session": 1, "exit_code": 3}
    assert brought_home(()) is None
    assert brought_home(({"event": "session", "number": 1}, home, {"event": "terminate"})) == (1, 3)
    for begun in ("session", "attempt"):
        assert brought_home((home, {"event": begun})) is None


def test_a_run_belongs_to_its_folder(tmp_path: Path) -> None:
    here = make_run(tmp_path / "here")
    there = make_run(tmp_path / "there")
    assert runs.open_runs(project=tmp_path / "here") == (here,)
    assert set(runs.open_runs(name="digits")) == {here, there}
    here.update(ended="now")
    assert runs.open_runs(project=tmp_path / "here") == ()


def test_the_lock_is_refused_at_once_to_a_second_holder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with (
        run.changing(),
        pytest.raises(RefusedError, match="another cloudtrain"),
        runs.RunFolder(run.path).changing(),
    ):
        pass
    with run.changing():
        pass


def test_a_damaged_run_names_its_file_and_the_way_out(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(UsageError) as caught:
        run.record()
    assert str(run.path) in caught.value.message
    assert "audit" in caught.value.hint


def test_requests_are_kept_byte_for_byte_and_private(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.store("token", b'{"a": 1}')
    assert run.load("token") == b'{"a": 1}'
    assert run.load("other") is None
    path = run.path / "requests" / "token.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
