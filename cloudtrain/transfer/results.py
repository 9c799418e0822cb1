"""Epochs and metrics from results.csv, as the two trainers write it.

ultralytics counts epochs from 1, yolov5 from 0 with padded names; here they count
from 1. The row of an epoch is written before its checkpoint, and comes twice when
a resumed training repeats the epoch: the last one counts. A last line without its
newline is being written and does not count.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["yolo", "yolov5", "script"]
MAP50 = ("metrics/mAP50(B)", "metrics/mAP_0.5")
MAP50_95 = ("metrics/mAP50-95(B)", "metrics/mAP_0.5:0.95")


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch, counted from 1, and its metrics under the framework's own names."""

    epoch: int
    metrics: dict[str, float] = field(default_factory=dict[str, float])


def parse_results(text: str, kind: Kind) -> tuple[Row, ...]:
    """Return the last row of each epoch, in order. Cells that are no number are left out.

    So are lines that cannot be read, and rows whose epoch is none (nan, infinite).
    """
    table = _lines(text[: text.rfind("\n") + 1])
    names = [name.strip() for name in next(table, list[str]())]
    rows: dict[int, Row] = {}
    for cells in table:
        values = {
            name: number
            for name, cell in zip(names, cells, strict=False)
            if (number := _number(cell)) is not None
        }
        if len(cells) != len(names) or not math.isfinite(values.get("epoch", math.nan)):
            continue
        epoch = int(values.pop("epoch")) + (1 if kind == "yolov5" else 0)
        values.pop("time", None)
        rows[epoch] = Row(epoch, values)
    return tuple(rows[epoch] for epoch in sorted(rows))


def _lines(text: str) -> Iterator[list[str]]:
    table = csv.reader(io.StringIO(text))
    while True:
        try:
            yield next(table)
        except csv.Error:  # a script writes what it likes: a cell may be longer than csv reads
            continue
        except StopIteration:
            return


def best_row(rows: tuple[Row, ...], kind: Kind) -> Row | None:
    """Return the row whose epoch is in best.pt.

    yolov5 weighs 0.1 mAP50 + 0.9 mAP50-95; ultralytics 8.4 takes mAP50-95 alone
    (utils/metrics.py, Metric.fitness). Both write best.pt again on a tie.
    """
    scored = [row for row in rows if _metric(row, MAP50_95) is not None]
    return max(scored, key=lambda row: (_fitness(row, kind), row.epoch), default=None)


def _fitness(row: Row, kind: Kind) -> float:
    whole = _metric(row, MAP50_95) or 0.0
    return whole if kind == "yolo" else 0.1 * (_metric(row, MAP50) or 0.0) + 0.9 * whole


def _metric(row: Row, names: tuple[str, ...]) -> float | None:
    return next((row.metrics[name] for name in names if name in row.metrics), None)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
