"""One look at a training, cheap enough for every few seconds: one round trip, new rows only."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.models.training import TrainingStatus
from cloudtrain.models.watching import Curves, GpuLoad, Readings
from cloudtrain.paths import shipped
from cloudtrain.ssh.remote import Remote
from cloudtrain.training.progress import NOT_METRICS, parse_status
from cloudtrain.training.scripts import script

RECENT = 5
"""Epochs that the time of the next is told from."""
STATUS = "status\t\n"


@dataclass(slots=True)
class Watcher:
    """Remembers what it has read, so that a long training costs no more than a short one."""

    remote: Remote
    layout: Layout
    config: Config
    _inode: str = "0"
    offset: int = 0
    _header: str = ""
    _rows: list[str] = field(default_factory=list[str])

    def look(self) -> tuple[TrainingStatus | None, Readings, Curves]:
        """Return how training and machine are; None for a run without a session.

        Raises `ConnectError` when the line breaks.
        """
        text = (shipped("templates") / "watch-machine.sh").read_text() + script("session-status.sh")
        words = (self._inode, str(self.offset), self.layout.root, *self.config.train.patterns)
        machine, _, rest = self.remote.script(text, *words).stdout.partition(STATUS)
        readings, wrote = self._take(machine)
        status = parse_status(rest, self.layout, self.config) if rest.strip() else None
        return status, readings, self._curves(status, wrote, _now(rest))

    def _take(self, text: str) -> tuple[Readings, float | None]:
        said: dict[str, str] = {}
        gpus: list[GpuLoad] = []
        new: list[str] = []
        *whole, _torn = text.split("\n")  # not splitlines: each byte of a row counts, its \r as well
        for line in whole:
            name, _, value = line.partition("\t")
            if name == "gpu":
                gpus += [_gpu(value)] if value.count(",") >= 5 else []  # errors come on stdout too
            elif name == "new":
                new.append(value)
            else:
                said[name] = value
        wrote = self._results(said.get("results", ""), new)
        return _readings(said, tuple(gpus)), wrote

    def _results(self, place: str, new: list[str]) -> float | None:
        """Take the new rows; a row without its end is told again next time."""
        if not place:
            self._inode, self.offset, self._header, self._rows = "0", 0, "", []
            return None
        inode, offset, wrote = place.split()
        if int(offset) == 0:
            self.offset, self._header, self._rows = 0, "", []
        self._inode = inode
        width = None
        for given in new:
            line = given.rstrip("\r")
            if not self._header:
                self._header = line
            else:
                width = width or self._header.count(",")
                if line.count(",") != width or not line.rsplit(",", 1)[-1].strip():
                    break
                self._rows.append(line)
            self.offset += len(given.encode()) + 1
        return float(wrote)

    def _curves(self, status: TrainingStatus | None, wrote: float | None, now: float | None) -> Curves:
        if not self._header or status is None:
            return Curves()
        names = [name.strip() for name in self._header.split(",")]
        first = 1 if self.config.train.kind == "yolov5" else 0
        rows: dict[int, dict[str, float]] = {}
        for number, line in enumerate(self._rows, 1):
            row = {
                name: value
                for name, cell in zip(names, line.split(","), strict=False)
                if (value := _number(cell)) is not None
            }
            rows[int(row["epoch"]) + first if "epoch" in row else number] = row  # the last of an epoch counts
        epochs = tuple(sorted(rows))
        values = {
            name: tuple(rows[epoch][name] for epoch in epochs)
            for name in names
            if name not in NOT_METRICS and all(name in rows[epoch] for epoch in epochs)
        }
        times = [rows[epoch]["time"] for epoch in epochs if "time" in rows[epoch]]
        since = max(0.0, now - wrote) if now is not None and wrote is not None else None
        return Curves(epochs, values, _epoch_s(times, status, epochs, wrote), since)


def eta_s(status: TrainingStatus, curves: Curves) -> float | None:
    """Return the seconds that are left of a running training, None where nothing tells."""
    if status.session.state != "running" or not status.epochs or not curves.epoch_s or not curves.epochs:
        return None
    left = (status.epochs - curves.epochs[-1]) * curves.epoch_s
    return max(0.0, left - min(curves.since_row_s or 0.0, curves.epoch_s))


def _epoch_s(
    times: list[float], status: TrainingStatus, epochs: tuple[int, ...], wrote: float | None
) -> float | None:
    """Return how long an epoch takes: by the trainer's own clock, which a resume sets back to 0."""
    steps = [b - a for a, b in pairwise(times) if b > a][-RECENT:]
    if steps:
        return sum(steps) / len(steps)
    if times:
        return times[-1]
    started = status.session.started
    if started is None or wrote is None or not epochs:
        return None
    return max(0.0, wrote - started.timestamp()) / len(epochs)


def _readings(said: dict[str, str], gpus: tuple[GpuLoad, ...]) -> Readings:
    memory = [float(part) / 1024 for part in said.get("memory", "").split()]
    disk = [float(part) / 1024 for part in said.get("disk", "").split()]
    load = said.get("load", "").split()
    return Readings(
        memory_mib=memory[0] - memory[1] if len(memory) == 2 else 0.0,
        memory_total_mib=memory[0] if len(memory) == 2 else 0.0,
        disk_free_mib=disk[1] if len(disk) == 2 else 0.0,
        disk_total_mib=disk[0] if len(disk) == 2 else 0.0,
        load=float(load[0]) if load else 0.0,
        cpus=int(load[1]) if len(load) == 2 else 0,
        gpus=gpus,
    )


def _gpu(text: str) -> GpuLoad:
    cells = [part.strip() for part in text.split(",", 5)]
    percent, memory, total, celsius, watts = (_number(cell) for cell in (*cells, "", "", "", "", "")[:5])
    return GpuLoad(cells[5] if len(cells) == 6 else "GPU", percent, memory, total, celsius, watts)


def _now(text: str) -> float | None:
    line = next((line for line in text.splitlines() if line.startswith("now\t")), "")
    return _number(line.partition("\t")[2])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
