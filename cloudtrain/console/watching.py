"""How `watch` looks: a screen on a terminal, and a line a look without one.

The screen is the terminal's second one, so that what was there before is there again
afterwards. `q` ends it, and Ctrl-C; nothing that is typed goes anywhere else.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloudtrain.console import words
from cloudtrain.console.stream import plain
from cloudtrain.models.watching import Look

BLOCKS = "▁▂▃▄▅▆▇█"
SIGNS = "._-=+*%#"
FIRST = ("map50-95", "map_0.5:0.95", "map50", "map_0.5", "precision", "recall")
"""What is worth a curve beside the losses, in this order."""
CURVES = 9


class Screen:
    """Draws looks on a terminal until somebody presses `q`."""

    def __init__(self, out: TextIO, given: TextIO, *, color: bool) -> None:
        self._given = given
        self._unicode = "utf" in (getattr(out, "encoding", None) or "").lower()
        self._console = Console(file=out, no_color=not color, highlight=False, force_terminal=True)
        self._live = Live(console=self._console, screen=True, auto_refresh=False, transient=True)
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        import termios
        import tty

        self._before = termios.tcgetattr(self._given.fileno())
        tty.setcbreak(self._given.fileno())
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import termios

        self._live.stop()
        if self._before is not None:
            termios.tcsetattr(self._given.fileno(), termios.TCSADRAIN, self._before)

    def show(self, look: Look) -> None:
        """Draw one look."""
        width, height = self._console.size
        self._live.update(picture(look, width=width, height=height, unicode=self._unicode), refresh=True)

    def leave(self, seconds: float) -> bool:
        """Wait; return whether `q` was pressed, or nobody can press it any more."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._given], [], [], left)
            if ready:
                pressed = os.read(self._given.fileno(), 64)
                if not pressed or b"q" in pressed.lower():
                    return True
        return False


def has_keys(given: TextIO | None) -> bool:
    """Whether keys can be read one by one: a terminal of a system that has them."""
    return given is not None and given.isatty() and sys.platform != "win32"


def picture(look: Look, *, width: int, height: int = 40, unicode: bool = True) -> RenderableType:
    """Return a look as what rich draws."""
    session = look.training.session
    head = Text(f"{look.run}  session {session.number:03d} {session.how}", style="bold")
    if look.lost:
        head.append(f"   connection lost, trying again: {plain(look.lost)}", style="yellow")
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    for name, text in facts(look, width=width, unicode=unicode):
        rows.add_row(Text(name), Text(text))
    curves = Table.grid(padding=(0, 2))
    for name, drawn, last in curve_rows(look, width=width, most=max(1, height - 14), unicode=unicode):
        curves.add_row(Text(name), Text(drawn), Text(last))
    tail = Text(words.cut(plain(look.training.last_line), max(20, width - 1)), style="dim")
    foot = Text("q leaves; the training goes on", style="dim")
    return Group(head, Text(), rows, Text(), curves, Text(), tail, foot)


def facts(look: Look, *, width: int = 80, unicode: bool = True) -> list[tuple[str, str]]:
    """Return what the screen says in words and bars, a name and a text each."""
    bar = max(10, min(30, width - 60))
    rows = [("epoch", _epochs(look, bar, unicode))]
    for number, gpu in enumerate(look.readings.gpus):
        used = _share(gpu.memory_mib, gpu.memory_total_mib)
        more = "".join(
            f"  {value:.0f} {unit}"
            for value, unit in ((gpu.celsius, "C"), (gpu.watts, "W"))
            if value is not None
        )
        share = _bar((gpu.percent or 0) / 100, bar, unicode)
        percent = "?" if gpu.percent is None else f"{gpu.percent:.0f}"
        rows.append((f"gpu {number}", f"{share} {percent:>3} %  {used}{more}  {plain(gpu.name)}"))
    readings = look.readings
    if readings.memory_total_mib:
        share = _bar(readings.memory_mib / readings.memory_total_mib, bar, unicode)
        rows.append(("memory", f"{share} {_share(readings.memory_mib, readings.memory_total_mib)}"))
    if readings.disk_total_mib:
        used = readings.disk_total_mib - readings.disk_free_mib
        share = _bar(used / readings.disk_total_mib, bar, unicode)
        rows.append(("disk", f"{share} {readings.disk_free_mib / 1024:.1f} GiB free"))
    if readings.cpus:
        rows.append(
            (
                "cpu",
                f"{_bar(readings.load / readings.cpus, bar, unicode)} load {readings.load:.1f} of {readings.cpus}",
            )
        )
    rows.append(("cost", _cost(look)))
    lease = "not known" if look.lease_left_s is None else _lease(look.lease_left_s)
    rows.append(("lease", lease))
    if look.at_risk_s is not None:
        rows.append(
            ("at risk", f"{words.duration(look.at_risk_s)} of work since the last secured checkpoint")
        )
    if look.training.trouble is not None:
        rows.append(("trouble", f"{look.training.trouble.text}; {look.training.trouble.hint}"))
    return rows


def curve_rows(
    look: Look, *, width: int, most: int = CURVES, unicode: bool = True
) -> list[tuple[str, str, str]]:
    """Return the curves: name, drawing, and the last value with the best."""
    room = max(10, min(60, width - 50))
    chosen = chosen_curves(tuple(look.curves.values))[: min(most, CURVES)]
    rows: list[tuple[str, str, str]] = []
    for name in chosen:
        values = look.curves.values[name]
        best = min(values) if "loss" in name.lower() else max(values)
        rows.append((plain(name), spark(values, room, unicode=unicode), f"{values[-1]:.4g}  best {best:.4g}"))
    return rows


def chosen_curves(names: tuple[str, ...]) -> list[str]:
    """Return which columns are drawn: what is measured first, then losses; no learning rates."""

    def rank(name: str) -> int:
        short = name.lower().rsplit("/", 1)[-1].removesuffix("(b)")
        return FIRST.index(short) if short in FIRST else len(FIRST)

    measured = sorted((name for name in names if rank(name) < len(FIRST)), key=rank)
    losses = [name for name in names if "loss" in name.lower()]
    others = [n for n in names if n not in measured and n not in losses and not n.startswith(("lr/", "x/"))]
    return [*measured[:2], *losses, *measured[2:], *others]


def spark(values: tuple[float, ...], width: int, *, unicode: bool = True) -> str:
    """Return a curve of at most `width` letters; each stands for the mean of its share."""
    marks = BLOCKS if unicode else SIGNS
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    count = min(width, len(known))
    cells = [
        known[i * len(known) // count : max((i + 1) * len(known) // count, i * len(known) // count + 1)]
        for i in range(count)
    ]
    means = [sum(cell) / len(cell) for cell in cells]
    low, high = min(means), max(means)
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((mean - low) * scale)] for mean in means)


def _epochs(look: Look, bar: int, unicode: bool) -> str:
    done, total = look.training.epoch or 0, look.training.epochs
    if not total:
        return str(done) if done else "none yet"
    speed = f", {words.duration(look.curves.epoch_s)} each" if look.curves.epoch_s else ""
    left = f", {words.duration(look.eta_s)} left" if look.eta_s is not None else ""
    return f"{_bar(done / total, bar, unicode)} {done} of {total}{speed}{left}"


def _cost(look: Look) -> str:
    if look.price_hour is None:
        return "no price is known"
    return f"{words.money(look.cost, look.currency)} so far, {words.money(look.price_hour, look.currency)} an hour"


def _lease(seconds: float) -> str:
    return f"{words.duration(seconds)} left" if seconds > 0 else "is over"


def _share(used: float | None, total: float | None) -> str:
    if used is None or not total:
        return "?"
    return f"{used / 1024:.1f} of {total / 1024:.1f} GiB"


def _bar(share: float, width: int, unicode: bool) -> str:
    full = round(max(0.0, min(1.0, share)) * width)
    return ("█" if unicode else "#") * full + ("░" if unicode else ".") * (width - full)
