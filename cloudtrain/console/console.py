"""One command's voice: its reporter, its questions, its one result."""

from __future__ import annotations

import json as json_module
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from cloudtrain.console import words
from cloudtrain.console.jsonable import to_jsonable
from cloudtrain.console.reporters import AnyReporter, JsonReporter, LineReporter, LiveReporter
from cloudtrain.errors import CloudtrainError, ConfigError, UsageError
from cloudtrain.events import Output
from cloudtrain.models.plan import Plan

if TYPE_CHECKING:
    from cloudtrain.workflows.audit import Audit
    from cloudtrain.workflows.down import Down
    from cloudtrain.workflows.evaluate import Evaluation
    from cloudtrain.workflows.fetch import Fetched
    from cloudtrain.workflows.run import Ran
    from cloudtrain.workflows.status import RunStatus
    from cloudtrain.workflows.train import Trained
    from cloudtrain.workflows.tunnel import Opened
    from cloudtrain.workflows.up import Up

NEXT = (
    "next:  cloudtrain status | logs -f | attach | tunnel tensorboard | fetch-weights",
    "       cloudtrain down      brings the weights home and ends the machine",
)


class Console:
    """Where a command speaks. Data and results on stdout, all else on stderr."""

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._json = json
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        env = os.environ if environ is None else environ
        self.interactive = self._err.isatty() and sys.stdin is not None and sys.stdin.isatty()
        self.reporter: AnyReporter
        if json:
            self.reporter = JsonReporter(self._err)
        elif self._err.isatty() and not quiet and env.get("TERM") != "dumb":
            self.reporter = LiveReporter(self._err, color="NO_COLOR" not in env)
        else:
            self.reporter = LineReporter(self._err, quiet=quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reporter.close()

    def confirm(self, question: str) -> bool:
        """Ask on the terminal. Raises `UsageError` where there is nobody to ask."""
        if not self.interactive or self._json:
            raise UsageError(
                "this creates things that cost money and needs a yes", hint="run it again with `-y`"
            )
        self._err.write(f"{question} [y/N] ")
        self._err.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def line(self, text: str) -> None:
        """Write one line of data."""
        if self._json:
            self.reporter.emit(Output(text))
        else:
            self._print(text)

    def data(self, value: object) -> None:
        """Write a JSON document as the command's output."""
        self._print(json_module.dumps(to_jsonable(value), indent=1))

    def result(self, value: object, text: str, *, plain: bool = False) -> None:  # noqa: ARG002 - reads well at the caller
        """Write the command's one result."""
        self.reporter.close()
        if self._json:
            self._print(json_module.dumps({"ok": True, "result": to_jsonable(value)}))
        elif text:
            self._print(text)

    def show_plan(self, plan: Plan) -> None:
        """Show what will be created and what it costs, before the question."""
        if self._json:
            self._err.write(json_module.dumps({"event": "plan", "plan": to_jsonable(plan)}) + "\n")
        else:
            self._err.write("\n".join(words.plan(plan)) + "\n")
        self._err.flush()

    def show_up(self, up: Up) -> None:
        """Show where the training runs now, how long each stage took, and what comes next."""
        head = f"{up.run} is up on {up.machine} at {up.address}; session {up.session.number:03d} is {up.session.state}"
        differs = (
            [f"different here since: {', '.join(up.differs)}; `cloudtrain train` applies it"]
            if up.differs
            else []
        )
        self.result(up, "\n".join([head, *differs, *words.waterfall(up.waterfall), *NEXT]))

    def show_trained(self, trained: Trained) -> None:
        """Show the session that was started."""
        head = f"{trained.run}: session {trained.session.number:03d} is {trained.session.state}"
        self.result(trained, "\n".join([head, *words.waterfall(trained.waterfall), *NEXT]))

    def show_ran(self, ran: Ran) -> None:
        """Show how a whole run ended."""
        verdict = (
            "the training succeeded"
            if ran.exit_code == 0
            else f"the training failed with exit code {ran.exit_code}"
        )
        lines = [f"{ran.run}: {verdict}", *words.artifacts(ran.artifacts)]
        self.result(ran, "\n".join(lines + (self._receipt(ran.down) if ran.down else [])))

    def show_down(self, down: Down) -> None:
        """Show what came home, what was spent, and that nothing is left."""
        lines = [f"{down.run} has ended", *(words.artifacts(down.artifacts) if down.artifacts else [])]
        self.result(down, "\n".join(lines + self._receipt(down)))

    def show_status(self, status: RunStatus) -> None:
        """Show machine, training and cost."""
        machine = status.machine
        lines = [f"run         {status.run}"]
        if machine is not None:
            lines.append(
                f"machine     {machine.id} is {machine.state}: {machine.type} ({machine.market}) in {machine.zone}"
            )
        if status.training is not None:
            lines += words.training(status.training)
        if status.receipt is not None:
            price = words.money(status.record.price_hour, status.record.currency)
            spent = words.money(status.receipt.cost, status.receipt.currency)
            lines.append(
                f"cost        {spent} so far, {price} an hour; lease until {status.record.deadline or 'not known'}"
            )
        lines += [f"not known   {what}" for what in status.missing]
        self.result(status, "\n".join(lines))

    def show_fetched(self, fetched: Fetched) -> None:
        """Show what is at home now."""
        head = f"{fetched.run}: session {fetched.session.number:03d} is {fetched.session.state}"
        self.result(fetched, "\n".join([head, *words.artifacts(fetched.artifacts)]))

    def show_evaluation(self, found: Evaluation) -> None:
        """Show what a checkpoint is worth on images it never saw."""
        text = f"mAP50 {found.map50:.3f}  mAP50-95 {found.map50_95:.3f}  ({found.images} images, {found.objects} objects)"
        self.result(found, f"{text}\ndetections  {found.picture}" if found.picture else text)

    def show_opened(self, opened: Opened) -> None:
        """Show a tunnel's address; the one place where Jupyter's token is meant to be seen."""
        value = {"name": opened.name, "local_port": opened.local_port, "url": opened.url}
        self._print(
            json_module.dumps({"ok": True, "result": value}) if self._json else f"{opened.name}: {opened.url}"
        )
        if not self._json:
            self._err.write("Ctrl-C closes the tunnel; the service and the training go on\n")
            self._err.flush()

    def show_audit(self, audit: Audit) -> None:
        """Show everything of ours in the region."""
        if not audit.found:
            self.result(audit, f"nothing of cloudtrain's exists in {audit.region}")
            return
        rows = [
            f"{one.kind:<15} {one.id:<24} {one.run:<30} {one.state:<12} {'yours' if one.mine else 'not yours'}"
            for one in audit.found
        ]
        self.result(
            audit,
            "\n".join([f"in {audit.region}:", *rows, "`cloudtrain down --name RUN` ends a run of yours"]),
        )

    def show_error(self, error: BaseException) -> int:
        """Show one clear message and return the exit code; a traceback goes to a file only."""
        self.reporter.close()
        if isinstance(error, BrokenPipeError):
            return 141
        if isinstance(error, KeyboardInterrupt):
            message, hint, code = "interrupted", "", 130
        elif isinstance(error, CloudtrainError):
            message, hint, code = error.message, error.hint, error.exit_code
        else:
            message, hint, code = *self._unexpected(error), 1
        if self._json:
            self._print(json_module.dumps({"ok": False, "error": _as_json(error, message, hint, code)}))
        else:
            self._err.write(f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else ""))
            self._err.flush()
        return code

    def _receipt(self, down: Down) -> list[str]:
        spent = words.money(down.receipt.cost, down.receipt.currency)
        left = len(down.receipt.leftovers)
        return [
            f"{words.duration(down.receipt.hours * 3600)} of machine time, {spent} at most; {left} left in the cloud"
        ]

    def _unexpected(self, error: BaseException) -> tuple[str, str]:
        from cloudtrain.paths import data_dir

        path = data_dir() / "logs" / f"error-{datetime.now(UTC):%Y%m%dT%H%M%S}.txt"
        text = "".join(traceback.format_exception(error))
        return f"{type(error).__name__}: {error}", _kept(path, text)

    def _print(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def _kept(path: Path, text: str) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
    except OSError:
        return "this is a bug of cloudtrain's; please report it"
    return f"this is a bug of cloudtrain's; `{path}` says where"


def _as_json(error: BaseException, message: str, hint: str, code: int) -> dict[str, object]:
    problems = [to_jsonable(p) for p in error.problems] if isinstance(error, ConfigError) else []
    return {
        "type": type(error).__name__,
        "message": message,
        "hint": hint,
        "exit_code": code,
        "problems": problems,
    }
