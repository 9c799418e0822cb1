"""What `watch` draws: looks in, text out."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cloudtrain.console.lines import Lines, line
from cloudtrain.console.watching import chosen_curves, picture, spark
from cloudtrain.models.training import Secured, Session, TrainingStatus
from cloudtrain.models.watching import Curves, GpuLoad, Look, Readings

NAMES = (
    "train/box_loss", "train/cls_loss", "metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)",
    "metrics/mAP50-95(B)", "val/box_loss", "lr/pg0",
)  # fmt: skip
LOOK = Look(
    run="helmets-0badcafe",
    at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
    training=TrainingStatus(
        Session(2, "s", "running", "/r", "/l", datetime(2026, 3, 4, 5, 0, 0, tzinfo=UTC)),
        epoch=10,
        epochs=100,
        metrics={"metrics/mAP50(B)": 0.5},
        last_line="\x1b]0;evil\x07Epoch 11",
        secured=Secured("/c", 10, 12.0),
    ),
    readings=Readings(8000, 16000, 30000, 60000, 1.5, 4, (GpuLoad("Tesla T4", 87, 5120, 15360, 61, 65.5),)),
    curves=Curves(tuple(range(1, 11)), {name: tuple(n / 10 for n in range(10)) for name in NAMES}, 30.0, 5.0),
    eta_s=2700.0,
    cost=0.42,
    price_hour=0.53,
    currency="USD",
    lease_left_s=3600.0,
    at_risk_s=12.0,
)


def drawn(look: Look, *, width: int = 100, unicode: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(picture(look, width=width, unicode=unicode))
    return console.export_text()


def test_everything_is_on_the_screen() -> None:
    said = drawn(LOOK)
    for wanted in (
        "session 002 running", "10 of 100", "45 min 0 s left", "30.0 s each", "87 %", "5.0 of 15.0 GiB",
        "Tesla T4", "61 C", "29.3 GiB free", "0.420 USD so far", "0.530 USD an hour", "1 h 0 min left", "12.0 s of work",
        "mAP50-95", "train/box_loss", "▁", "q leaves",
    ):  # fmt: skip
        assert wanted in said, wanted
    assert "lr/pg0" not in said
    assert "\x1b" not in said
    assert "evil" not in said


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_it_fits_whatever_the_width(width: int) -> None:
    assert max(len(row) for row in drawn(LOOK, width=width).splitlines()) <= width


def test_a_terminal_of_few_letters_gets_few_letters() -> None:
    assert drawn(LOOK, unicode=False).isascii()


def test_what_is_not_known_is_left_out_or_said() -> None:
    bare = replace(
        LOOK, readings=Readings(), curves=Curves(), eta_s=None, cost=None, price_hour=None, lease_left_s=None,
        at_risk_s=None, training=TrainingStatus(LOOK.training.session), lost="no answer",
    )  # fmt: skip
    said = drawn(bare)
    assert "none yet" in said
    assert "no price is known" in said
    assert "connection lost" in said
    assert "gpu" not in said


def test_curves_that_are_chosen() -> None:
    assert chosen_curves(NAMES)[:2] == ["metrics/mAP50-95(B)", "metrics/mAP50(B)"]
    assert chosen_curves(("train/obj_loss", "metrics/mAP_0.5", "x/lr0")) == [
        "metrics/mAP_0.5",
        "train/obj_loss",
    ]
    assert chosen_curves(("loss", "accuracy")) == ["loss", "accuracy"]


@pytest.mark.parametrize(
    ("values", "width", "curve"),
    [
        ((), 5, ""),
        ((1.0,), 5, "▁"),
        ((0.0, 1.0), 5, "▁█"),
        ((0.0, 0.0, 1.0, 1.0), 2, "▁█"),
        ((float("nan"), 0.0, 1.0), 5, "▁█"),
        (tuple(float(n) for n in range(1000)), 8, "▁▂▃▄▅▆▇█"),
    ],
)
def test_a_small_curve(values: tuple[float, ...], width: int, curve: str) -> None:
    assert spark(values, width) == curve


def test_without_a_terminal_it_is_a_line_a_look() -> None:
    out = io.StringIO()
    with Lines(out, json=False) as shown:
        shown.show(LOOK)
    assert out.getvalue() == line(LOOK) + "\n"
    assert "epoch 10 of 100; 45 min 0 s left" in out.getvalue()


def test_json_is_an_object_a_line() -> None:
    out = io.StringIO()
    with Lines(out, json=True) as shown:
        shown.show(LOOK)
        shown.show(LOOK)
    rows = [json.loads(row) for row in out.getvalue().splitlines()]
    assert [row["look"]["training"]["epoch"] for row in rows] == [10, 10]
