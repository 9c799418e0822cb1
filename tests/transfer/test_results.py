"""results.csv of both trainers."""

from __future__ import annotations

from cloudtrain.transfer.listing import glob_pattern
from cloudtrain.transfer.results import best_row, parse_results

YOLO = "epoch,time,train/box_loss,metrics/mAP50(B),metrics/mAP50-95(B)\n"
V5 = "               epoch,      train/box_loss,     metrics/mAP_0.5,metrics/mAP_0.5:0.95\n"


def test_ultralytics_counts_from_one() -> None:
    rows = parse_results(YOLO + "1,3.2,1.5,0.2,0.1\n2,6.1,1.1,0.5,0.3\n", "yolo")
    assert [row.epoch for row in rows] == [1, 2]
    assert rows[1].metrics == {"train/box_loss": 1.1, "metrics/mAP50(B)": 0.5, "metrics/mAP50-95(B)": 0.3}


def test_yolov5_counts_from_zero_and_pads() -> None:
    rows = parse_results(
        V5 + "                   0,              0.11,               0.2,   0.1\n    1, 0.1, 0.3, 0.2\n",
        "yolov5",
    )
    assert [row.epoch for row in rows] == [1, 2]
    assert rows[0].metrics["metrics/mAP_0.5:0.95"] == 0.1


def test_repeated_and_torn_rows() -> None:
    """The last row of an epoch counts; a line being written does not; nan is a number, text is none."""
    rows = parse_results(YOLO + "1,1,1,0.1,0.1\n2,2,1,0.2,0.2\n2,1,1,0.4,0.3\n3,2,1,0.9,0.", "yolo")
    assert [(row.epoch, row.metrics["metrics/mAP50(B)"]) for row in rows] == [(1, 0.1), (2, 0.4)]
    assert parse_results("", "yolo") == ()
    assert parse_results("rubbish\n\n1,2\n", "yolo") == ()


def test_what_cannot_be_read_is_left_out() -> None:
    """A cell that is longer than csv reads, an epoch that is none: the other rows count."""
    long = "x" * 150_000
    rows = parse_results(f"epoch,loss\n1,0.5\n{long},1\n2,{long}\n3,0.4\n", "script")
    assert [(row.epoch, row.metrics) for row in rows] == [(1, {"loss": 0.5}), (3, {"loss": 0.4})]
    assert parse_results(f"question,answer\nq,{long}\n", "script") == ()
    assert parse_results(f"question,{long}\nq,1\n", "script") == ()
    rows = parse_results("epoch,loss\nnan,1\ninf,2\n-inf,3\n1e999,4\n5,nan\na\rb,1\n6,0.1\n", "script")
    assert [row.epoch for row in rows] == [5, 6]


def test_best_is_what_the_trainer_means() -> None:
    text = "1,1,1,0.9,0.40\n2,2,1,0.1,0.42\n3,3,1,0.1,0.42\n4,4,1,0.1,0.1\n"
    rows = parse_results(YOLO + text, "yolo")
    best = best_row(rows, "yolo")
    assert best is not None
    assert best.epoch == 3
    five = best_row(rows, "yolov5")
    assert five is not None
    assert five.epoch == 1
    assert best_row((), "yolo") is None


def test_patterns() -> None:
    def hit(pattern: str, path: str) -> bool:
        return glob_pattern(pattern).fullmatch(path) is not None

    assert hit("**/*.pt", "a.pt")
    assert hit("**/*.pt", "x/y/a.pt")
    assert hit("out/**/*.pt", "out/a.pt")
    assert hit("out/*.p[tk]", "out/a.pk")
    assert hit("./out/**", "out/a/b")
    assert not hit("out/*.pt", "out/x/a.pt")
    assert not hit("*.pt", "x/a.pt")
    assert not hit("a.pt", "axpt")
