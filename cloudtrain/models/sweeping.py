"""How a search for hyperparameters stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SweepWorker:
    """One device's worker. `state` is running, idle, ended or given up; `log` lies on the machine."""

    number: int
    device: str
    state: str
    done: int
    restarts: int
    log: str


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """A search: `done` counts the rows of its one table, the best of them by the trainer's fitness."""

    trials: int
    done: int
    table: str
    best_trial: int | None
    best_fitness: float | None
    workers: tuple[SweepWorker, ...]
