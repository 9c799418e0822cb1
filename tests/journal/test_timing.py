"""How long a run's commands took: what waited for what, kept with the run, and read again."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.console.words import timings
from cloudtrain.events import Silent, StageTime, Timeline, Waterfall
from cloudtrain.journal.folder import RunFolder

SHOWN = Waterfall(
    (
        StageTime("plan", 0, 1, "3 changes", ok=True),
        StageTime("base", 1, 31, "changed", ok=True, after=("plan",)),
        StageTime("push", 1, 3, "", ok=False, after=("plan",)),
    ),
    31.0,
    ("plan", "base"),
)


def test_what_was_kept_is_read_again_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.timings() == ()
    folder.keep_timing("up", SHOWN)
    folder.keep_timing("provision", Waterfall((), 0.0, ()))
    with (tmp_path / "timing.jsonl").open("a") as file:
        file.write('{"at": "2026')  # what a crash leaves
    first, second = folder.timings()
    assert (first.verb, first.waterfall) == ("up", SHOWN)
    assert second.verb == "provision"


def test_the_table_says_start_length_and_what_was_waited_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.keep_timing("provision", Waterfall((), 4.0, ()))
    folder.keep_timing("up", SHOWN)
    earlier, head, names, *rows, note = timings(folder.timings())
    assert earlier.strip().startswith("provision ")
    assert head.endswith("UTC: 31.0 s")
    assert names.split() == ["stage", "start", "took", "waited", "for", "outcome"]
    assert [row.split() for row in rows] == [
        ["*", "plan", "0.0", "s", "1.0", "s", "3", "changes"],
        ["*", "base", "1.0", "s", "30.0", "s", "plan", "changed"],
        ["push", "1.0", "s", "2.0", "s", "plan", "failed"],
    ]
    assert "the end waited for it" in note
    assert timings(()) == ["nothing was timed yet"]


def test_a_stage_that_is_known_to_wait_is_not_guessed_at() -> None:
    times = iter([0, 0, 0, 10, 12, 12, 20, 20, 30])
    timeline = Timeline(Silent(), clock=lambda: float(next(times)))
    with timeline.stage("a"), timeline.stage("b"):
        pass  # both begin at 0; b ends at 10, a at 12
    with timeline.stage("c", after=("b",)):
        pass
    shown = timeline.waterfall()
    assert {one.stage: one.after for one in shown.stages} == {"a": (), "b": (), "c": ("b",)}
    assert shown.critical == ("b", "c")
