"""How `watch` speaks where no terminal is: a line a look, or a JSON object a look."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self, TextIO

from cloudtrain.console import words
from cloudtrain.console.jsonable import dumps
from cloudtrain.console.stream import plain, put
from cloudtrain.models.watching import Look


class Lines:
    """Writes each look as a line, and waits for nobody's key."""

    def __init__(self, out: TextIO, *, json: bool) -> None:
        self._out, self._json = out, json
        self._never = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def show(self, look: Look) -> None:
        """Write one look."""
        put(self._out, (dumps({"look": look}) if self._json else plain(line(look))) + "\n")

    def leave(self, seconds: float) -> bool:
        """Wait; nobody ends it but a signal."""
        self._never.wait(seconds)
        return False


def line(look: Look) -> str:
    """Return a look as one line, for a log or a pipe."""
    said = [f"session {look.training.session.number:03d} {look.training.session.how}"]
    said.append(f"epoch {look.training.epoch or 0} of {look.training.epochs or '?'}")
    if look.eta_s is not None:
        said.append(f"{words.duration(look.eta_s)} left")
    if look.training.metrics:
        said.append(words.metrics(look.training.metrics))
    said += [f"gpu {gpu.percent:.0f} %" for gpu in look.readings.gpus if gpu.percent is not None]
    if look.cost is not None:
        said.append(words.money(look.cost, look.currency))
    if look.at_risk_s is not None:
        said.append(f"{words.duration(look.at_risk_s)} at risk")
    if look.lost:
        said.append(f"connection lost: {look.lost}")
    return f"{look.at:%H:%M:%S}  {'; '.join(said)}"
