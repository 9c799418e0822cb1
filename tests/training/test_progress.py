from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.models.config import Config, Train
from cloudtrain.training import parse_results, status, stop
from tests.training.conftest import Bench

ULTRALYTICS = "epoch,time,train/box_loss,metrics/mAP50(B)\n"
YOLOV5 = "               epoch,      train/box_loss,     metrics/mAP_0.5\n"


@pytest.mark.parametrize(
    ("text", "kind", "epoch", "metrics"),
    [
        ("", "yolo", None, {}),
        (ULTRALYTICS, "yolo", None, {}),
        (
            ULTRALYTICS + "1,9.5,1.2,0.5\n2,19,1.1,0.6\n",
            "yolo",
            2,
            {"train/box_loss": 1.1, "metrics/mAP50(B)": 0.6},
        ),
        (
            ULTRALYTICS + "2,9.5,1.2,0.5\n2,1.1,1.0,0.7\n",
            "yolo",
            2,
            {"train/box_loss": 1.0, "metrics/mAP50(B)": 0.7},
        ),
        (ULTRALYTICS + "1,9.5,1.2,0.5\n2,19,1.", "yolo", 1, {"train/box_loss": 1.2, "metrics/mAP50(B)": 0.5}),
        (
            YOLOV5 + "     0,    0.12,     0.01\n",
            "yolov5",
            1,
            {"train/box_loss": 0.12, "metrics/mAP_0.5": 0.01},
        ),
        ("epoch,loss\n4,abc\n", "script", 4, {}),
        ("loss\n0.5\n", "script", None, {"loss": 0.5}),
    ],
)
def test_results_of_both_trainers(text: str, kind: str, epoch: int | None, metrics: dict[str, float]) -> None:
    assert parse_results(text, kind) == (epoch, metrics)


def test_a_loss_that_is_not_a_number_is_a_metric_all_the_same() -> None:
    assert parse_results("epoch,loss\nnan,1\n", "yolo") == (None, {"loss": 1.0})
    _, metrics = parse_results("epoch,loss\n1,nan\n", "yolo")
    assert str(metrics["loss"]) == "nan"


def test_no_session_no_status(bench: Bench) -> None:
    assert status(bench.remote, bench.layout, bench.config("true")) is None


def test_status_reads_everything_at_once(bench: Bench, sshd: object) -> None:
    command = (
        'mkdir -p "$CLOUDTRAIN_RUN_DIR/weights"; cd "$CLOUDTRAIN_RUN_DIR"; printf "task: detect\\nepochs: 12\\n" > args.yaml;'
        'printf "epoch,time,loss\\n1,2,0.9\\n2,4,0.8\\n3,6,0.7\\n4,8,0.6\\n" > results.csv; echo old > weights/best.pt;'
        'touch -d "1 hour ago" weights/best.pt; echo new > weights/last.pt; printf "ready\\n 3%%\\r 4%%"; sleep 60'
    )
    session = bench.start(command)
    bench.until(session, "4%")
    found = status(bench.remote, bench.layout, bench.config("true", args={"epochs": 99}))
    stop(bench.remote, bench.layout, session)
    assert found is not None
    assert found.session.state == "running"
    assert (found.epoch, found.epochs, found.metrics) == (4, 12, {"loss": 0.6})
    assert found.checkpoint == f"{session.run_dir}/weights/last.pt"
    assert found.checkpoint_age_s is not None
    assert 0 <= found.checkpoint_age_s < 30
    assert found.last_line == "4%"


def test_status_of_a_script_finds_its_outputs_but_no_older_file(bench: Bench) -> None:
    old = Path(bench.layout.project, "out", "old epoch.pt")
    old.parent.mkdir()
    old.write_text("old")
    config = Config(train=Train(kind="script", command="x", outputs=("out/**/*.pt",), args={"epochs": 5}))
    ended = bench.end(bench.start("true"))
    before = status(bench.remote, bench.layout, config)
    assert before is not None
    assert (before.checkpoint, before.epochs, before.session) == (None, 5, ended)
    bench.end(bench.start("mkdir -p 'out/a b'; sleep 0.02; echo x > 'out/a b/new.pt'", number=2))
    after = status(bench.remote, bench.layout, config)
    assert after is not None
    assert after.checkpoint == f"{bench.layout.project}/out/a b/new.pt"


def test_the_newest_session_is_the_highest_number(bench: Bench) -> None:
    for number in (2, 1000):
        bench.end(bench.start(f"echo {number}", number=number))
    found = status(bench.remote, bench.layout, bench.config("true"))
    assert found is not None
    assert (found.session.number, found.last_line) == (1000, "1000")
