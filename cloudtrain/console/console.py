"""One command's voice: its reporter, its questions, its one result."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from cloudtrain.console import account, words
from cloudtrain.console.jsonable import dumps
from cloudtrain.console.reporters import make_reporter
from cloudtrain.console.stream import plain as printable
from cloudtrain.console.stream import put, tell
from cloudtrain.errors import CloudtrainError, ConfigError, UsageError
from cloudtrain.events import Output, Waterfall
from cloudtrain.models.plan import Plan, Receipt

if TYPE_CHECKING:
    from cloudtrain.console.lines import Lines
    from cloudtrain.console.watching import Screen
    from cloudtrain.journal.folder import Timing
    from cloudtrain.models.account import Policy
    from cloudtrain.models.training import Artifact
    from cloudtrain.workflows.adopt import Adopted
    from cloudtrain.workflows.audit import Audit, Deletion
    from cloudtrain.workflows.bake import Bake
    from cloudtrain.workflows.doctor import Diagnosis
    from cloudtrain.workflows.down import Down
    from cloudtrain.workflows.evaluate import Evaluation
    from cloudtrain.workflows.extend import Extended
    from cloudtrain.workflows.fetch import Fetched
    from cloudtrain.workflows.images import Images
    from cloudtrain.workflows.offers import Offers
    from cloudtrain.workflows.park import Parked, Started
    from cloudtrain.workflows.provision import Provisioned
    from cloudtrain.workflows.provision_all import Fleet
    from cloudtrain.workflows.quota import Quotas
    from cloudtrain.workflows.run import Ran
    from cloudtrain.workflows.status import RunStatus
    from cloudtrain.workflows.sweep import Swept
    from cloudtrain.workflows.train import Trained
    from cloudtrain.workflows.tunnel import Opened
    from cloudtrain.workflows.up import Up

NEXT = (
    "next:  cloudtrain status | logs -f | attach | tunnel tensorboard | fetch-weights",
    "       cloudtrain down      brings the weights home and ends the machine",
)


class Console:
    """Where a command speaks. Data and results on stdout, all else on stderr.

    With `json` stdout gets one object, `{"ok": true, "result": …}` or `{"ok": false,
    "error": …}`, and stderr the events as JSON lines.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        stdin: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._json = json
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        # A daemon, or `<&-`, has none.
        self._in: TextIO | None = stdin or sys.stdin
        self._ended = False
        self.interactive = self._err.isatty() and self._in is not None and self._in.isatty()
        self.reporter = make_reporter(
            json=json,
            quiet=quiet,
            stream=self._err,
            environ=os.environ if environ is None else environ,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reporter.close()

    def confirm(self, question: str, *, why: str = "this creates things that cost money") -> bool:
        """Ask on the terminal. Raises `UsageError` where there is nobody to ask."""
        if not self.interactive or self._json or self._in is None:
            raise UsageError(f"{why} and needs a yes", hint="run it again with `-y`")
        with self.reporter.held():
            put(self._err, f"{question} [y/N] ")
            return self._in.readline().strip().lower() in ("y", "yes")

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer a question."""
        return self.interactive and not self._json

    def secret(self, question: str) -> str:
        """Ask for something that must not show, on the terminal itself."""
        from getpass import getpass

        with self.reporter.held():
            return getpass(question)

    def line(self, text: str) -> None:
        """Write one line of data; with `json` it is an event."""
        if self._json:
            self.reporter.emit(Output(text))
        else:
            self._print(text)

    def data(self, value: object) -> None:
        """Write a JSON document as the command's output."""
        self._print(dumps(value, indent=1))

    def result(self, value: object, text: str, *, plain: bool = False) -> None:
        """Write the command's one result; `plain` text goes out letter by letter, for scripts."""
        self.reporter.close()
        if self._json:
            self._print(dumps({"ok": True, "result": value}))
            self._ended = True
        elif text:
            self._print(text if plain else printable(text))

    def watching(self) -> Screen | Lines:
        """Return what shows a `watch`: a screen on a terminal, else lines, with `json` JSON lines."""
        from cloudtrain.console.lines import Lines
        from cloudtrain.console.watching import Screen, has_keys

        if self._json or not self._out.isatty() or not has_keys(self._in) or self._in is None:
            return Lines(self._out, json=self._json)
        return Screen(self._out, self._in, color=not os.environ.get("NO_COLOR"))

    def show_plan(self, plan: Plan) -> None:
        """Show what will be done and what it costs, before the question."""
        if self._json:
            tell(self._err, dumps({"event": "plan", "plan": plan}) + "\n")
        else:
            tell(self._err, "\n".join(words.plan(plan)) + "\n")

    def show_waterfall(self, shown: Waterfall) -> None:
        """Show how long each stage took, beside the result: on stderr."""
        if self._json:
            self.reporter.emit(shown)
        else:
            tell(self._err, "\n".join(words.waterfall(shown, width=_width(self._err))) + "\n")

    def show_receipt(self, receipt: Receipt) -> None:
        """Show what a run cost and what is left of it."""
        self.result(receipt, "\n".join(words.receipt(receipt)))

    def show_artifacts(self, artifacts: tuple[Artifact, ...]) -> None:
        """Show what is at home."""
        self.result(artifacts, "\n".join(words.artifacts(artifacts)))

    def show_up(self, up: Up) -> None:
        """Show where the training runs now, how long each stage took, and what comes next."""
        head = f"{up.run} is up on {up.machine} at {up.address}; session {up.session.number:03d} is {up.session.how}"
        differs = (
            [f"different here since: {', '.join(up.differs)}; `cloudtrain train` applies it"]
            if up.differs
            else []
        )
        self.result(up, "\n".join([head, *differs, *self._waterfall(up.waterfall), *NEXT]))

    def show_provisioned(self, done: Provisioned) -> None:
        """Show every step, and whether anything was changed or is pending."""
        lines = [*words.steps(done.steps), words.provisioned(done)]
        self.result(done, "\n".join(lines))

    def show_fleet(self, fleet: Fleet) -> None:
        """Show what became of each machine, the failed ones last."""
        lines = [words.provisioned(done) for done in fleet.machines]
        for failed in fleet.failed:
            lines.append(f"{failed.run}: failed: {failed.message}")
            lines += [f"hint: {failed.hint}"] if failed.hint else []
        self.result(fleet, "\n".join(lines))

    def show_bake(self, bake: Bake) -> None:
        """Show the image that was made, and what it costs to keep."""
        self.result(bake, "\n".join([*words.baked(bake.image, bake.cost), *self._waterfall(bake.waterfall)]))

    def show_images(self, images: Images) -> None:
        """Show the images of the caller's own."""
        self.result(images, "\n".join(account.images(images)))

    def show_trained(self, trained: Trained) -> None:
        """Show the session that was started."""
        head = f"{trained.run}: session {trained.session.number:03d} is {trained.session.how}"
        self.result(trained, "\n".join([head, *self._waterfall(trained.waterfall), *NEXT]))

    def show_ran(self, ran: Ran) -> None:
        """Show how a whole run ended."""
        verdict = (
            "the training succeeded"
            if ran.exit_code == 0
            else f"the training failed with exit code {ran.exit_code}"
        )
        lines = [f"{ran.run}: {verdict}", *(words.artifacts(ran.artifacts) if ran.artifacts else [])]
        self.result(ran, "\n".join(lines + (words.receipt(ran.down.receipt) if ran.down else [])))

    def show_down(self, down: Down) -> None:
        """Show what came home, what was spent, and that nothing is left."""
        lines = [f"{down.run} has ended", *(words.artifacts(down.artifacts) if down.artifacts else [])]
        self.result(down, "\n".join(lines + words.receipt(down.receipt)))

    def show_parked(self, parked: Parked) -> None:
        """Show that a machine is put aside, and what that costs."""
        price = words.money(parked.cost_month, parked.currency)
        self.result(
            parked,
            f"{parked.run} is parked: {parked.machine} is stopped, its disk costs {price} a month\n"
            "next: `cloudtrain start` goes on, `cloudtrain down` brings the weights home and ends it",
        )

    def show_extended(self, extended: Extended) -> None:
        """Show until when the machine may live now, and what that comes to."""
        self.result(extended, "\n".join(words.extended(extended)))

    def show_started(self, started: Started) -> None:
        """Show where a machine runs again, and what is on it."""
        session = started.session
        state = f"; session {session.number:03d} is {session.how}" if session else ""
        head = f"{started.run} is up on {started.machine} at {started.address}{state}"
        self.result(started, "\n".join([head, *NEXT]))

    def show_adopted(self, adopted: Adopted) -> None:
        """Show the run that this computer knows now."""
        session = adopted.session
        state = f"; session {session.number:03d} is {session.how}" if session else ""
        head = f"{adopted.run} is this folder's now: {adopted.machine} at {adopted.address}{state}"
        self.result(adopted, "\n".join([head, *NEXT]))

    def show_status(self, status: RunStatus) -> None:
        """Show machine, training and cost."""
        machine = status.machine
        lines = [f"run         {status.run}"]
        if machine is not None:
            lines.append(words.machine(machine))
        if status.training is not None:
            lines += words.training(status.training)
        lines += words.lease(status.lease)
        if status.receipt is not None:
            price = words.price_now(status.record, status.machine)
            spent = words.money(status.receipt.cost, status.receipt.currency)
            lines.append(f"cost        {spent} so far, {price}")
        lines += [f"not known   {what}" for what in status.missing]
        self.result(status, "\n".join(lines))

    def show_timings(self, run: str, kept: tuple[Timing, ...]) -> None:
        """Show how long the stages of the run's commands took."""
        self.result({"run": run, "timings": kept}, "\n".join(words.timings(kept)))

    def show_fetched(self, fetched: Fetched) -> None:
        """Show what is at home now."""
        head = f"{fetched.run}: session {fetched.session.number:03d} is {fetched.session.how}"
        self.result(fetched, "\n".join([head, *words.artifacts(fetched.artifacts)]))

    def show_swept(self, swept: Swept) -> None:
        """Show a search: how far it is, its best, and each worker."""
        head = f"{swept.run}: session {swept.session.number:03d} is {swept.session.how}"
        self.result(swept, "\n".join([head, *words.sweep(swept.sweep)]))

    def show_evaluation(self, found: Evaluation) -> None:
        """Show what a checkpoint is worth on images it never saw."""
        text = f"mAP50 {found.map50:.3f}  mAP50-95 {found.map50_95:.3f}  ({found.images} images, {found.objects} objects)"
        self.result(found, f"{text}\ndetections  {found.picture}" if found.picture else text)

    def show_opened(self, opened: tuple[Opened, ...]) -> None:
        """Show the tunnels' addresses; the one place where Jupyter's token is meant to be seen."""
        if self._json:
            tunnels = [{"name": one.name, "local_port": one.local_port, "url": one.url} for one in opened]
            self._print(dumps({"ok": True, "result": {"tunnels": tunnels}}))
            self._ended = True
            return
        for one in opened:
            self._print(f"{one.name}: {one.url}")
        tell(self._err, "Ctrl-C closes the tunnel; the service and the training go on\n")

    def show_audit(self, audit: Audit) -> None:
        """Show everything of ours that the cloud holds, and how each thing is removed."""
        self.result(audit, "\n".join(account.audit(audit)))

    def show_deletion(self, deletion: Deletion) -> None:
        """Show what was removed and what stays."""
        self.result(deletion, "\n".join(account.deletion(deletion)))

    def show_offers(self, offers: Offers) -> None:
        """Show what can be had, cheapest first."""
        self.result(offers, "\n".join(account.offers(offers)))

    def show_quota(self, quotas: Quotas) -> None:
        """Show what is allowed, used and needed."""
        self.result(quotas, "\n".join(account.quota(quotas)))

    def show_doctor(self, diagnosis: Diagnosis) -> None:
        """Show every check, with the remedy of what is not well."""
        self.result(diagnosis, "\n".join(account.doctor(diagnosis)))

    def show_policy(self, policy: Policy) -> None:
        """Write the policy document itself, ready for IAM; with `json` the reasons as well."""
        self.result(policy, dumps(policy.document, indent=2), plain=True)

    def show_error(self, error: BaseException) -> int:
        """Show one clear message and return the exit code; a traceback goes to a file only."""
        self.reporter.close()
        if isinstance(error, BrokenPipeError):
            self._nobody_reads()
            return 141
        if isinstance(error, KeyboardInterrupt):
            message, hint, code = "interrupted", "", 130
        elif isinstance(error, CloudtrainError):
            message, hint, code = error.message, error.hint, error.exit_code
        else:
            message, hint, code = *_unexpected(error), 1
        if self._json:
            answer = {"ok": False, "error": _as_json(error, message, hint, code)}
            tell(self._err if self._ended else self._out, dumps(answer) + "\n")
        else:
            said = f"error: {_headed(error, message)}\n" + (f"\nhint: {hint}\n" if hint else "")
            tell(self._err, printable(said))
        return code

    def _waterfall(self, shown: Waterfall) -> list[str]:
        return words.waterfall(shown, width=_width(self._out))

    def _print(self, text: str) -> None:
        put(self._out, text + "\n")

    def _nobody_reads(self) -> None:
        """Send what is still buffered nowhere, or the interpreter would complain as it ends."""
        try:
            descriptor = self._out.fileno()
        except (OSError, ValueError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _width(stream: TextIO) -> int | None:
    """Return a terminal's width in letters; what is no terminal has none."""
    if not stream.isatty():
        return None
    return shutil.get_terminal_size().columns


def _headed(error: BaseException, message: str) -> str:
    """Return a message; several problems stand below their number, each on a line of its own."""
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        return f"{len(error.problems)} problems in the configuration\n{message}"
    return message


def _unexpected(error: BaseException) -> tuple[str, str]:
    """Return message and hint for what should not have happened; its traceback goes to a file."""
    from cloudtrain.paths import data_dir

    path = data_dir() / "logs" / f"error-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    text = "".join(traceback.format_exception(error))
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__, _kept(path, text)


def _kept(path: Path, text: str) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_text(text, errors="replace")
    except OSError:
        return "this is a bug of cloudtrain's; please report it"
    return f"this is a bug of cloudtrain's; `{path}` says where"


def _as_json(error: BaseException, message: str, hint: str, code: int) -> dict[str, object]:
    return {
        "type": type(error).__name__,
        "message": message,
        "hint": hint,
        "exit_code": code,
        "problems": error.problems if isinstance(error, ConfigError) else (),
    }
