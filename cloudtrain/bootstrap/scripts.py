"""The two scripts the engine sends: all checks at once, and one step's apply.

Both are read whole by bash before anything in them runs, so a line that is cut in the
middle leaves a step either not begun or going on to its end on the machine, under a
lock that the next `up` waits for. Texts of steps go into files and functions, never
into an argument list: an index address may hold a password.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cloudtrain.bootstrap.step import Step
from cloudtrain.models.run import Layout
from cloudtrain.render import render
from cloudtrain.ssh.remote import Remote

REBOOT_NEEDED = "reboot needed"
"""The detail of a step that did its part and waits for a reboot: the caller reboots the
machine, connects again, gathers facts again and converges again."""

Word = Literal["satisfied", "changed", "reboot", "failed", "unchanged", "refused", "busy", "broken"]
_WORDS: tuple[Word, ...] = (
    "satisfied", "changed", "reboot", "failed", "unchanged", "refused", "busy", "broken",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checked:
    """What one check said: whether the step holds, and its last line."""

    ok: bool
    said: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an apply ended: one word, a number or phrase with it, and the log's last lines."""

    word: Word
    detail: str
    tail: str


def log_path(step: Step, layout: Layout) -> str:
    """Return where the machine keeps what the step's apply printed."""
    return f"{layout.logs}/{step.name}.log"


def script_path(step: Step, layout: Layout) -> str:
    """Return where the machine keeps the step's apply, for its owner to read and run."""
    return f"{layout.root}/steps/{step.name}.sh"


def lock_path(step: Step, layout: Layout) -> str:
    """Return the file whose lock a step holds: its run's own, or one for all runs there."""
    folder = f"{posixpath.dirname(layout.root)}/.locks" if step.shared else f"{layout.root}/steps"
    return f"{folder}/{step.lock or step.name}.lock"


def check_script(steps: Sequence[Step]) -> str:
    """Render the script that runs every check, each in a subshell of its own."""
    return render("converge-check.sh.j2", steps=steps)


def apply_script(step: Step, layout: Layout) -> str:
    """Render the script that checks, applies and checks again, under the machine's lock."""
    return render(
        "converge-apply.sh.j2",
        step=step,
        script=script_path(step, layout),
        log=log_path(step, layout),
        lock=lock_path(step, layout),
        seconds=int(step.timeout_s),
    )


def run_checks(remote: Remote, steps: Sequence[Step]) -> dict[str, Checked]:
    """Run all checks in one round trip. A check whose answer is missing does not hold."""
    if not steps:
        return {}
    answer = remote.script(check_script(steps), timeout=120, check=False).stdout
    return _read_checks(answer, steps)


def run_apply(remote: Remote, step: Step, layout: Layout) -> Verdict:
    """Check, apply, check again in one round trip; the output stays in the step's log."""
    # The lock's wait and the apply are each bounded on the machine; this is the net under both.
    patience = step.timeout_s * 2 + 60
    result = remote.script(apply_script(step, layout), timeout=patience, check=False)
    return _read_verdict(result.stdout, result.stderr)


def owner_commands(step: Step, layout: Layout) -> str:
    """Say what the owner of a machine runs when we may not.

    By its path, not by `<`: its owner may be another user than ours, whose files only root reads.
    """
    return step.by_hand or f"sudo bash {shlex.quote(script_path(step, layout))}"


def _read_checks(answer: str, steps: Sequence[Step]) -> dict[str, Checked]:
    found = {step.name: Checked(False, "its check did not answer") for step in steps}
    for line in answer.splitlines():
        word, _, rest = line.partition(" ")
        parts = rest.split(" ", 2)
        if word != "@check" or len(parts) < 2 or not parts[0].isdigit():
            continue
        said = parts[2].strip() if len(parts) > 2 else ""
        found[steps[int(parts[0])].name] = Checked(parts[1] == "0", said)
    return found


def _read_verdict(answer: str, errors: str) -> Verdict:
    lines = answer.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("@step "):
            continue
        word, _, detail = line.removeprefix("@step ").partition(" ")
        for known in _WORDS:
            if word == known:
                return Verdict(known, detail.strip(), "\n".join(lines[number + 1 :]))
    return Verdict("broken", "the step's script ended without an answer", errors.strip()[-2000:])
