"""Events as a log file, a script and a terminal get them."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable

import pytest
from rich.progress import Progress as RichProgress

from cloudtrain.console import ConsoleReporter, make_reporter
from cloudtrain.console.live import LiveReporter
from cloudtrain.console.reporters import EVERY_S, JsonReporter, LineReporter
from cloudtrain.console.stream import plain
from cloudtrain.events import (
    Event,
    Note,
    Output,
    Progress,
    StageFinished,
    StageStarted,
    StageTime,
    Timeline,
    Waterfall,
)
from tests.console.streams import Gone, Terminal

EVENTS: tuple[Event, ...] = (
    StageStarted("push", "data"),
    StageStarted("install"),
    Progress("push", 1_500_000, 3_000_000, "bytes", 2.0, "a.png"),
    Note("slow line", "warning", "try another"),
    Output("\x1b[31mred\x1b[0m", "train.log"),
    StageFinished("push", 3.0, "2 files"),
    StageFinished("install", 61.0, "no space", ok=False),
    Waterfall((StageTime("push", 0, 3, "2 files", ok=True),), 3.0, ("push",)),
)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(*events: Event, quiet: bool = False, clock: Callable[[], float] | None = None) -> list[str]:
    stream = io.StringIO()
    reporter = LineReporter(stream, quiet=quiet, clock=clock or Clock())
    for event in events:
        reporter.emit(event)
    reporter.close()
    return stream.getvalue().splitlines()


def test_a_log_file_gets_a_line_where_a_stage_begins_and_where_it_ends() -> None:
    assert lines(*EVENTS) == [
        "..   push  data",
        "..   install",
        "warning: slow line",
        "hint: try another",
        "red",
        "ok   push  2 files  3.0 s",
        "FAIL install  no space  1 min 1 s",
        "* push   ################################      3.0 s  2 files",
        "  total                                        3.0 s  (* the end waited for it)",
    ]


def test_quiet_leaves_warnings() -> None:
    assert lines(*EVENTS, Note("fine"), quiet=True) == ["warning: slow line", "hint: try another"]


def test_progress_is_said_every_ten_seconds_and_for_each_stage_by_itself() -> None:
    clock, stream = Clock(), io.StringIO()
    reporter = LineReporter(stream, quiet=False, clock=clock)
    for stage in ("a", "b"):
        reporter.emit(StageStarted(stage))
    for _ in range(50):
        clock.now += 1
        for stage in ("a", "b"):
            reporter.emit(Progress(stage, clock.now - 100, 50, "epochs", eta_s=3661))
    said = [line for line in stream.getvalue().splitlines() if " of 50" in line]
    assert len(said) == 2 * 50 / EVERY_S
    assert said[0] == "..   a  10 of 50 epochs, 1 h 1 min left"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Progress("s", 0, 0, "epochs", detail="loading"), "loading"),
        (Progress("s", 3, 0, "files"), "3 files"),
        (Progress("s", 5e8, 2e9, "bytes", 0.4), "500.0 MB of 2.0 GB, 0.4 s left"),
        (Progress("s", 3, 10, "epochs", 59.96, "mAP50 0.912"), "3 of 10 epochs, 1 min 0 s left  mAP50 0.912"),
    ],
)
def test_progress_is_an_amount_and_the_time_that_is_left(event: Progress, text: str) -> None:
    clock = Clock()
    stream = io.StringIO()
    reporter = LineReporter(stream, quiet=False, clock=clock)
    reporter.emit(StageStarted("s"))
    clock.now += EVERY_S
    reporter.emit(event)
    assert stream.getvalue().splitlines()[-1] == f"..   s  {text}"


def test_a_script_gets_every_event_as_a_line_of_json() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    for event in (*EVENTS, Progress("x", float("nan"), 0, "steps")):
        reporter.emit(event)
    told = [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]
    assert [one["event"] for one in told] == [
        *("stage-started", "stage-started", "progress", "note", "output"),
        *("stage-finished", "stage-finished", "waterfall", "progress"),
    ]
    assert told[2]["eta_s"] == 2.0
    assert told[7]["stages"][0]["stage"] == "push"
    assert told[8]["done"] is None


def test_a_terminal_shows_every_running_stage_and_keeps_the_ended_ones() -> None:
    stream = Terminal()
    reporter = LiveReporter(stream, color=True)
    for event in EVENTS[:3]:
        reporter.emit(event)
    display(reporter).refresh()
    running = plain_of(stream)
    assert "1.5 MB of 3.0 MB, 2.0 s left  a.png" in running
    assert "install" in running
    for event in EVENTS[3:]:
        reporter.emit(event)
    reporter.close()
    reporter.close()
    said = plain_of(stream)
    for text in (
        "warning: slow line",
        "hint: try another",
        "✓ push  2 files  3.0 s",
        "✗ install  no space",
        "* push",
    ):
        assert text in said
    assert stream.getvalue().endswith("\n")


def display(reporter: LiveReporter) -> RichProgress:
    return reporter._progress  # pyright: ignore[reportPrivateUsage]


def plain_of(stream: Terminal) -> str:
    return "\n".join(plain(line) for line in stream.getvalue().replace("\r", "\n").split("\n"))


def test_two_stages_of_one_name_run_and_end_apart() -> None:
    stream = Terminal()
    reporter = LiveReporter(stream, color=False)
    for event in (StageStarted("connect", "a"), StageStarted("connect", "b")):
        reporter.emit(event)
    reporter.emit(StageFinished("connect", 1.0))
    assert len(display(reporter).tasks) == 1
    reporter.emit(StageFinished("connect", 2.0))
    assert not display(reporter).tasks
    reporter.emit(StageFinished("connect", 3.0))
    reporter.close()


def test_without_colour_the_words_are_the_same() -> None:
    shown: dict[bool, str] = {}
    for color in (True, False):
        stream = Terminal()
        reporter = LiveReporter(stream, color=color)
        reporter.emit(Note("slow", "warning"))
        reporter.emit(StageFinished("a", 1.0, ok=False))
        reporter.close()
        shown[color] = stream.getvalue()
    assert "\x1b[3" in shown[True]
    assert "\x1b[3" not in shown[False]
    assert plain(shown[True]) == plain(shown[False]) == "warning: slow\n✗ a  1.0 s\n"


@pytest.mark.parametrize("columns", ["20", "40", "200"])
def test_a_narrow_terminal_gets_one_line_a_stage(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    stream = Terminal()
    reporter = LiveReporter(stream, color=False)
    reporter.emit(StageStarted("push data", "from a place with a very long name " * 5))
    display(reporter).refresh()
    shown = stream.getvalue()
    reporter.close()
    assert shown.count("\n") == 0
    assert all(len(plain(line)) <= int(columns) for line in shown.split("\r"))


@pytest.mark.parametrize(
    ("environ", "isatty", "options", "kind"),
    [
        ({}, True, {}, LiveReporter),
        ({}, False, {}, LineReporter),
        ({"TERM": "dumb"}, True, {}, LineReporter),
        ({}, True, {"quiet": True}, LineReporter),
        ({}, True, {"json": True}, JsonReporter),
    ],
)
def test_the_stream_decides_who_reports(
    environ: dict[str, str], isatty: bool, options: dict[str, bool], kind: type
) -> None:
    made = made_for(io.StringIO(), environ, isatty=isatty, **options)
    assert isinstance(made, kind)


@pytest.mark.parametrize(("value", "coloured"), [(None, True), ("", True), ("1", False)])
def test_no_color_is_respected(value: str | None, coloured: bool) -> None:
    stream = Terminal()
    reporter = made_for(stream, {} if value is None else {"NO_COLOR": value}, isatty=None)
    reporter.emit(Note("slow", "warning"))
    reporter.close()
    assert ("\x1b[3" in stream.getvalue()) is coloured


def made_for(
    stream: io.StringIO,
    environ: dict[str, str],
    *,
    isatty: bool | None,
    json: bool = False,
    quiet: bool = False,
) -> ConsoleReporter:
    return make_reporter(json=json, quiet=quiet, stream=stream, environ=environ, isatty=isatty)


@pytest.mark.parametrize("stream", [Gone(), closed := io.StringIO(), Gone(terminal=True)])
@pytest.mark.parametrize("json", [True, False])
def test_a_closed_terminal_ends_nothing(stream: io.StringIO, json: bool) -> None:
    if stream is closed:
        stream.close()
    reporter = made_for(stream, {}, isatty=isinstance(stream, Gone) and stream.isatty(), json=json)
    for event in EVENTS:
        reporter.emit(event)
    reporter.close()


def test_letters_that_a_stream_lacks_become_question_marks() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    LineReporter(stream, quiet=False).emit(Note("100 µs"))
    assert raw.getvalue() == b"100 ? s\n".replace(b"? s", b"?s")


def test_many_threads_may_report_at_once() -> None:
    for reporter in (LineReporter(io.StringIO(), quiet=False), LiveReporter(Terminal(), color=True)):
        timeline = Timeline(reporter)
        start = threading.Barrier(8)

        def work(n: int, timeline: Timeline = timeline, start: threading.Barrier = start) -> None:
            start.wait()
            for _ in range(10):
                with timeline.stage(f"s{n}") as stage:
                    timeline.reporter.emit(Progress(f"s{n}", 1, 2, "steps"))
                    stage.outcome = "done"

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reporter.close()
        assert len(timeline.waterfall().stages) == 80


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m \x1b[2K", "red "),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("10%\r20%\r30%\r\nnext", "30%\nnext"),
        ("a\x07b\x08c\x9bd", "abcd"),
        ("a\tb", "a       b"),
        ("\x1b", ""),
    ],
)
def test_what_would_change_a_terminal_is_taken_out(text: str, shown: str) -> None:
    assert plain(text) == shown
