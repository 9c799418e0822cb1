"""What every workflow is given, and the small words they share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtrain.errors import (
    AuthenticationFailed,
    CloudtrainError,
    ConnectError,
    EndedError,
    GoneError,
    HostKeyMismatch,
    RefusedError,
    UsageError,
)
from cloudtrain.events import Note, Reporter, Timeline
from cloudtrain.journal.folder import RunFolder, RunRecord, damaged_runs, open_runs
from cloudtrain.journal.log import open_attempt
from cloudtrain.models.run import Layout

if TYPE_CHECKING:  # `status` without a run answers from disk, and pays for none of these
    from cloudtrain.models.config import Config
    from cloudtrain.models.machine import Machine
    from cloudtrain.models.plan import Plan
    from cloudtrain.providers.base import Identity, Provider
    from cloudtrain.ssh.remote import Remote

TELLING_S = 4.0
"""How long a command that failed asks the cloud what still runs."""


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
    wait_hours: float = 0.0
    """How long to keep asking for a machine that is not to be had now."""
    resume: bool = False
    """Go on from the furthest copy at home, on another machine."""
    verify: bool = False
    """Whether every pushed file's hash is compared."""
    ask: Callable[[str], bool] | None = None
    """Asks what costs no money, of which `-y` says nothing; None where nobody is there."""


def find_run(base: Path, name: str | None) -> RunFolder | None:
    """Return the open run of a folder, or of a name. Raises `UsageError` when several fit."""
    found = open_runs(project=None if name else base, name=name)
    if len(found) > 1:
        listed = ", ".join(f"`{folder.path.name}`" for folder in found)
        raise UsageError(
            f"several runs fit: {listed}", hint=f"name one of them: `--name {found[-1].path.name}`"
        )
    return found[0] if found else None


def require_run(base: Path, name: str | None) -> RunFolder:
    """Return the open run. Raises `UsageError` naming the others when there is none here."""
    found = find_run(base, name)
    if found is not None:
        return found
    others = ", ".join(f"`{folder.path.name}`" for folder in open_runs())
    known = f"; open runs elsewhere: {others}" if others else ""
    what = f"no open run named `{name}`" if name else f"no open run belongs to `{base}`"
    raise UsageError(
        f"{what}{known}{_damaged()}", hint="`cloudtrain up` starts one; `--name NAME` picks another folder's"
    )


def with_way_in(
    folder: RunFolder, config: Config, provider: Callable[[], Provider], reporter: Reporter
) -> RunFolder:
    """Return the folder with ways to a machine that has moved, or that no longer admits this computer."""
    if folder.record().own:
        return folder

    def refind() -> bool:
        return _refound(folder, provider, reporter)

    def readmit() -> bool:
        try:
            address = provider().caller_address(config)
            # The group is asked and not the record: a rule that another computer behind the same
            # address made goes when that one moves.
            if not provider().repair_ingress(folder.run(), address):
                return False
        except CloudtrainError as error:
            reporter.emit(Note(f"whether your address has changed is not known: {error.message}"))
            return False
        folder.update(ingress=address)
        reporter.emit(Note(f"the machine did not admit your address any more: now it admits {address}/32"))
        return True

    given = config.instance.security_group is not None or config.instance.address == "private"
    shut = given or folder.record().ingress is None
    return replace(folder, refind=refind, readmit=None if shut else readmit)


def _refound(folder: RunFolder, provider: Callable[[], Provider], reporter: Reporter) -> bool:
    """Take over the machine's address of now: EC2 starts a reclaimed one again at another.

    Raises `ConnectError` when the machine does not run, which says more than that nobody answers, and
    `EndedError` when it never will.
    """
    record = folder.record()
    try:
        observed = provider().observe(folder.run())
    except CloudtrainError:
        return False
    machine = next((one for one in observed.machines if one.id == record.machine), None)
    if machine is None or machine.state == "pending" or (record.parked and machine.state != "running"):
        return False
    if machine.state != "running":
        by_itself = machine.market == "spot" and machine.alive
        kind = ConnectError if machine.alive else EndedError
        raise kind(
            f"{machine.id} is {machine.state}: nothing answers there",
            hint="EC2 starts it again when it has room (spot)"
            if by_itself
            else "`cloudtrain status` shows what there is; `cloudtrain up` goes on",
        )
    if machine.address is None or (machine.address == record.address and not record.parked):
        return False
    folder.update(address=machine.address, parked=False)
    reporter.emit(Note(f"{machine.id} was started again, at {machine.address}"))
    return True


def own_run(context: Context) -> RunFolder:
    """Return the open run of the folder that a command was called in. Raises `UsageError`."""
    folder = require_run(context.base, None)
    return with_way_in(folder, context.config, context.provider, context.reporter)


def nothing_to_end(name: str | None) -> str:
    """Say that no open run is here. Raises `UsageError` where that would hide something.

    A name that is not known here, and a folder that cannot be read, may each stand for
    a machine that costs money: only the cloud can tell.
    """
    damaged = _damaged()
    if name or damaged:
        what = (
            f"no open run named `{name}` is known on this computer" if name else "no open run is known here"
        )
        raise UsageError(
            what + damaged,
            hint="`cloudtrain audit` asks the cloud what exists; `cloudtrain adopt NAME` takes a run over",
        )
    return "no open run here: nothing to end"


def _damaged() -> str:
    found = ", ".join(f"`{folder.path}`" for folder in damaged_runs())
    return f"; unreadable: {found}" if found else ""


def connect_run(folder: RunFolder) -> Remote:
    """Connect to a run's machine at its last known address, verified.

    Where it does not answer, it may have moved: a reclaimed machine comes back at a new
    address, and its old one may be somebody else's by now. Or this computer's address has
    changed, and the machine admits the old one only.
    """
    from cloudtrain.ssh.remote import connect, connect_when_ready

    try:
        return connect(folder.target())
    except AuthenticationFailed:
        raise
    except (ConnectError, UsageError) as error:
        moved = folder.refind is not None and folder.refind()
        foreign = isinstance(error, HostKeyMismatch | UsageError)
        if not moved and (foreign or folder.readmit is None or not folder.readmit()):
            raise
    if moved and folder.readmit is not None:
        folder.readmit()
    return connect_when_ready(folder.target(), deadline_s=120) if moved else connect(folder.target())


def check_account(folder: RunFolder, provider: Provider) -> Identity:
    """Return who asks. Raises `RefusedError` when a run lives in another account than the caller's.

    The cloud shows nothing of it there, which must never be taken for its end.
    """
    identity, record = provider.identity(), folder.record()
    if record.account is None or not identity.account or identity.account == record.account:
        return identity
    profile = f"AWS_PROFILE={record.profile}" if record.profile else "AWS_PROFILE, say"
    raise RefusedError(
        f"run `{folder.path.name}` lives in account {record.account}, and your credentials are of {identity.account}",
        hint=f"nothing was asked or changed; use the credentials that it was begun with ({profile})",
    )


def check_open(folder: RunFolder) -> None:
    """Raise `GoneError` when another command ended the run. Called with its lock held, or to wait."""
    record = folder.record()
    if record.ended or record.machine is None:
        raise GoneError(
            f"run `{folder.path.name}` was ended by another command",
            hint=f"what came home is in `{folder.artifacts}`",
        )


def over(deadline: str | None) -> bool:
    """Whether a lease has ended by now; one without an end has not."""
    return deadline is not None and datetime.fromisoformat(deadline) < datetime.now(UTC)


def layout_on(remote: Remote, folder: RunFolder) -> Layout:
    """Return where the run's things lie on the machine."""
    return layout_of(folder, remote.home)


def layout_of(folder: RunFolder, home: str) -> Layout:
    """Return where the run's things lie under a known HOME."""
    return Layout(f"{home}/cloudtrain/{folder.path.name}")


def artifacts_of(folder: RunFolder, number: int) -> Path:
    """Return where a session's checkpoints and results come home to."""
    return folder.artifacts / f"{number:03d}"


@contextmanager
def telling_what_runs(
    folder: RunFolder, reporter: Reporter, provider: Callable[[], Provider] | None = None
) -> Generator[None]:
    """Let no failure pass without saying what may still run, its price, and how to end it.

    With a `provider` the cloud is asked, for `TELLING_S` seconds; without an answer only
    what was last seen is said.
    """
    try:
        yield
    except BaseException:
        note = _what_runs(folder, provider)
        if note is not None:
            reporter.emit(note)
        raise


def _what_runs(folder: RunFolder, provider: Callable[[], Provider] | None) -> Note | None:
    try:
        record, rows = folder.record(), folder.journal.rows()
    except (UsageError, OSError):
        return None
    if record.ended is not None:
        return None
    if open_attempt(rows) is not None:
        return Note(
            "a machine may have been launched: its answer did not come",
            level="warning",
            hint="`cloudtrain bake` finds it"
            if record.bake
            else "`cloudtrain up` finds it; `cloudtrain down` ends it",
        )
    if record.machine is not None:
        return _said(record, _seen(folder, record.machine, provider))
    if any(row["event"] == "access" for row in rows):
        return Note("no machine runs; a key pair and a security group, which are free, may be there")
    return None


def _said(record: RunRecord, machine: Machine | None) -> Note:
    price = f", {record.price_hour:.3f} {record.currency} an hour" if record.price_hour else ""
    hint = "`cloudtrain up` continues there; `cloudtrain down` brings the weights home and ends it"
    if record.bake:
        hint = f"`cloudtrain bake` goes on; `cloudtrain down --name {record.name}-{record.id}` ends it"
    if machine is not None and not machine.alive:
        text = f"{machine.id} ({record.name}) is gone ({machine.state})"
        return Note(text, hint="`cloudtrain down` tidies up, `cloudtrain up` launches another")
    if machine is None:
        state = f"ran when last seen{price}"
    else:
        state = f"still runs{price}" if machine.state in ("running", "pending") else f"is {machine.state}"
    return Note(f"{record.machine} ({record.name}) {state}", level="warning", hint=hint)


def _seen(folder: RunFolder, machine_id: str, provider: Callable[[], Provider] | None) -> Machine | None:
    """Ask the cloud for a machine, without ever keeping the user waiting for the answer."""
    if provider is None:
        return None
    answer: list[Machine] = []

    def ask() -> None:
        with suppress(CloudtrainError):
            observed = provider().observe(folder.run())
            answer.extend(machine for machine in observed.machines if machine.id == machine_id)

    asking = threading.Thread(target=ask, daemon=True, name="what runs")
    asking.start()
    asking.join(TELLING_S)
    return answer[0] if answer else None


@contextmanager
def timed(folder: RunFolder, verb: str, timeline: Timeline) -> Generator[None]:
    """Keep how long the stages of a command took in the run's folder, however it ended."""
    try:
        yield
    finally:
        with suppress(OSError):
            folder.keep_timing(verb, timeline.waterfall())
