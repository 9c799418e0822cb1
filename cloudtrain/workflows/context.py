"""What every workflow is given, and the small words they share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtrain.errors import UsageError
from cloudtrain.events import Note, Reporter, Timeline
from cloudtrain.journal.folder import RunFolder, open_runs
from cloudtrain.models.run import Layout

if TYPE_CHECKING:  # `status` without a run answers from disk, and pays for none of these
    from cloudtrain.models.config import Config
    from cloudtrain.models.plan import Plan
    from cloudtrain.providers.base import Provider
    from cloudtrain.ssh.remote import Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One command: what is wanted, where it was called, and how to speak and ask.

    `provider` makes the provider when it is first needed: a verb that needs no
    cloud never imports one.
    """

    config: Config
    base: Path
    provider: Callable[[], Provider]
    reporter: Reporter
    timeline: Timeline
    confirm: Callable[[str], bool]
    show_plan: Callable[[Plan], None]


def find_run(base: Path, name: str | None) -> RunFolder | None:
    """Return the open run of a folder, or of a name. Raises `UsageError` when several fit."""
    found = open_runs(project=None if name else base, name=name)
    if len(found) > 1:
        listed = ", ".join(f"`{folder.path.name}`" for folder in found)
        raise UsageError(
            f"several runs fit: {listed}", hint="name one: `--name NAME`, from its project folder"
        )
    return found[0] if found else None


def require_run(base: Path, name: str | None) -> RunFolder:
    """Return the open run. Raises `UsageError` naming the others when there is none here."""
    found = find_run(base, name)
    if found is not None:
        return found
    others = ", ".join(f"`{folder.record().name}`" for folder in open_runs())
    known = f"; open runs elsewhere: {others}" if others else ""
    what = f"no open run named `{name}`" if name else f"no open run belongs to `{base}`"
    raise UsageError(what + known, hint="`cloudtrain up` starts one; `--name NAME` picks another folder's")


def connect_run(folder: RunFolder) -> Remote:
    """Connect to a run's machine at its last known address, verified."""
    from cloudtrain.ssh.remote import connect

    return connect(folder.target())


def layout_on(remote: Remote, folder: RunFolder) -> Layout:
    """Return where the run's things lie, asking the machine for its HOME once."""
    home = remote.run('printf %s "$HOME"').stdout
    return Layout(f"{home}/cloudtrain/{folder.path.name}")


def layout_of(folder: RunFolder, home: str) -> Layout:
    """Return where the run's things lie under a known HOME."""
    return Layout(f"{home}/cloudtrain/{folder.path.name}")


def artifacts_of(folder: RunFolder, number: int) -> Path:
    """Return where a session's checkpoints and results come home to."""
    return folder.artifacts / f"{number:03d}"


@contextmanager
def telling_what_runs(folder: RunFolder, reporter: Reporter) -> Generator[None]:
    """Let no failure pass without saying what still runs, its price, and how to end it."""
    try:
        yield
    except BaseException:
        record = folder.record()
        if record.machine is not None and record.ended is None:
            price = f", {record.price_hour:.3f} {record.currency} an hour" if record.price_hour else ""
            reporter.emit(
                Note(
                    f"{record.machine} ({record.name}) still runs{price}",
                    level="warning",
                    hint="`cloudtrain up` continues there; `cloudtrain down` brings the weights home and ends it",
                )
            )
        raise
