"""`provision --all`: every machine of this computer's open runs, side by side.

One that fails hides no other: each is brought as far as it goes, and every failure is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cloudtrain.errors import CloudtrainError
from cloudtrain.events import Event, Note, Output, Reporter, Timeline, Waterfall
from cloudtrain.journal.folder import RunFolder
from cloudtrain.workflows.context import Context
from cloudtrain.workflows.provision import Provisioned, provision

AT_ONCE = 16
"""Machines that are worked on at a time; each has a connection of its own."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why one machine is not as it should be."""

    run: str
    message: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """What became of every machine."""

    machines: tuple[Provisioned, ...]
    failed: tuple[Failed, ...]

    @property
    def exit_code(self) -> int:
        """The first failure's code, 0 without one."""
        return self.failed[0].exit_code if self.failed else 0


@dataclass(frozen=True, slots=True)
class Named:
    """A reporter that says which run an event is of."""

    run: str
    reporter: Reporter

    def emit(self, event: Event) -> None:
        """Pass an event on under the run's name; the single waterfalls are left out."""
        if isinstance(event, Waterfall):
            return
        if isinstance(event, Note | Output):
            self.reporter.emit(replace(event, text=f"{self.run}: {event.text}"))
        else:
            self.reporter.emit(replace(event, stage=f"{self.run}: {event.stage}"))


def provision_all(
    folders: Sequence[RunFolder],
    given: Callable[[RunFolder], tuple[Context, RunFolder]],
    *,
    only: str | None = None,
    dry_run: bool = False,
) -> Fleet:
    """Converge the machines of some runs side by side; never raises for one of them.

    `given` returns what `provision` is given for a run.
    """

    def one(folder: RunFolder) -> Provisioned | Failed:
        name = folder.path.name
        try:
            context, reached = given(folder)
            reporter = Named(name, context.reporter)
            context = replace(context, reporter=reporter, timeline=Timeline(reporter))
            return provision(context, reached, only=only, dry_run=dry_run)
        except CloudtrainError as error:
            return Failed(name, error.message, error.hint or "", error.exit_code)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are told of all the same
            return Failed(name, f"unexpected: {error!r}", "`cloudtrain provision --name` shows more", 1)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="provision") as pool:
        done = tuple(pool.map(one, folders))
    return Fleet(
        tuple(each for each in done if isinstance(each, Provisioned)),
        tuple(each for each in done if isinstance(each, Failed)),
    )
