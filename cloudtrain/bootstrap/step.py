"""One step: a fact that should hold on a machine, and the script that makes it hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`check` and `apply` are bash; `check` exits 0 when there is nothing to do.

    `check` must be cheap (milliseconds: no Python start, no network), harmless, and work
    without root; the last line it prints is shown as the reason for applying. `apply`
    may be killed at any instant and run again. It exits with 194 when it did its part
    and the machine must reboot before the check can pass. It may expect PATH and HOME of
    its environment, and nothing else.

    `needs` names steps that come first, `lock` a mutex shared with other steps (`apt`,
    `env`), `timeout_s` bounds `apply` in seconds. A `root` step is not run without root or
    sudo; `by_hand` is then what the machine's owner may run, and `required` says that
    training cannot work without it. `waits_for_project` holds it (and its check) back
    until the project has arrived. `shared` says that it changes what every run of this user on
    the machine uses, so that two runs take turns. Which steps an image may carry the result of is
    said by ami/recipe.yaml.
    """

    name: str
    reason: str
    check: str
    apply: str
    needs: tuple[str, ...] = ()
    root: bool = False
    lock: str | None = None
    timeout_s: float = 1800
    waits_for_project: bool = False
    required: bool = False
    by_hand: str = ""
    shared: bool = False
