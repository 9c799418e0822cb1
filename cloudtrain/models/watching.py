"""What `watch` shows: one look at a training and its machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cloudtrain.models.training import TrainingStatus


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """One GPU's use: percent, MiB, degrees Celsius, watts. None where it does not tell."""

    name: str
    percent: float | None
    memory_mib: float | None
    memory_total_mib: float | None
    celsius: float | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class Readings:
    """What is used of a machine, in MiB; `load` is the one-minute average over `cpus`."""

    memory_mib: float = 0.0
    memory_total_mib: float = 0.0
    disk_free_mib: float = 0.0
    disk_total_mib: float = 0.0
    load: float = 0.0
    cpus: int = 0
    gpus: tuple[GpuLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class Curves:
    """Every epoch's figures under the framework's own names, oldest first.

    `epochs` counts from 1; `epoch_s` is how long the last ones took, `since_row_s` how long
    ago the newest row was written.
    """

    epochs: tuple[int, ...] = ()
    values: dict[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    epoch_s: float | None = None
    since_row_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One poll. `lost` says why the last ones had no answer; the rest is then what was seen before."""

    run: str
    at: datetime
    training: TrainingStatus
    readings: Readings
    curves: Curves
    eta_s: float | None
    """Seconds until the last epoch ends."""
    cost: float | None
    """Spent so far, at most; None where no price is known."""
    price_hour: float | None
    currency: str
    lease_left_s: float | None
    at_risk_s: float | None
    """Seconds of work since the newest secured checkpoint; None while nothing runs."""
    lost: str = ""
