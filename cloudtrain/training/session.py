"""Sessions: begun, listed, entered, ended.

The training is the child of a supervisor that screen shows. Its output goes to a log
file directly, so a window that stands still (Ctrl-S, a dead terminal) cannot stop it;
it ignores the hang-up, so it outlives screen itself; Ctrl-C in the window reaches it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import cast

from cloudtrain.errors import RefusedError, StepError
from cloudtrain.guard import program
from cloudtrain.models import container as models_container
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Session, SessionState
from cloudtrain.paths import shipped
from cloudtrain.ssh.remote import Remote
from cloudtrain.training.command import build_command, settings
from cloudtrain.training.scripts import script
from cloudtrain.training.sweeping import search

EXISTS = 17
"""Exit code of session-start.sh.j2 when the session's folder is there already."""


def start(
    remote: Remote,
    config: Config,
    layout: Layout,
    *,
    slug: str,
    python: str,
    number: int,
    dataset_yaml: str | None,
    model: str,
    facts: Facts,
    resume_from: str | None = None,
    guard: dict[str, object] | None = None,
) -> Session:
    """Start session `number` and return it once its supervisor runs; one round trip.

    `python` is the environment's interpreter and `dataset_yaml` a path, both on the
    machine; `model` is a name, or the path there of a file. Without screen the session
    is detached all the same, and `Session.screen` is empty. `resume_from` is a checkpoint
    on the machine to go on from, where the session has none of its own. `guard` is a
    guard's config (cloudtrain.guard.host_config), which then runs beside the session as
    the user where the machine has none of its own. Raises `UsageError` for a
    config that cannot be run, `RefusedError` when the number is taken, and `StepError`
    when nothing came up.
    """
    run_dir = layout.run_dir(number)
    gpus = sum(1 for gpu in facts.gpus if gpu.driver is not None)
    one = config
    if config.sweep.trials:  # each trial is a training on one device
        one = replace(config, train=replace(config.train, gpus=None))
    argv, env = build_command(
        one,
        layout,
        python=python,
        run_dir=run_dir,
        dataset_yaml=dataset_yaml,
        model=model,
        gpus=min(gpus, 1) if config.sweep.trials else gpus,
    )
    searched = (
        search(config, layout, argv=argv, number=number, model=model, gpus=gpus)
        if config.sweep.trials
        else None
    )
    _, text = starting(
        layout,
        kind=config.train.kind,
        argv=argv,
        env=env,
        python=python,
        number=number,
        screen=f"{slug}-{number:03d}",
        outputs=config.train.patterns,
        resume_from=resume_from,
        guard=guard,
        container=_container(config, facts, layout, argv, env, number),
        sweep=searched,
    )
    result = remote.script(text, timeout=90, check=False)
    if result.code == EXISTS:
        raise RefusedError(
            f"session {number:03d} is there already",
            hint="`cloudtrain status` shows it, `cloudtrain train` starts the next",
        )
    if not result.ok:
        raise StepError(
            f"the training did not start (exit {result.code}):\n{result.tail}",
            hint="`cloudtrain ssh` lets you look at the machine",
        )
    return parse_session(result.stdout, layout)[0]


def stop(remote: Remote, layout: Layout, session: Session, *, grace_s: int = 20) -> Session:
    """End everything the session started, and its screen; return how it ended.

    Every process of it gets TERM, and KILL after `grace_s` seconds. A session that
    ended before stays as it was; one that was interrupted will not go on.
    """
    folder = layout.session(session.number)
    result = remote.script(script("session-stop.sh"), folder, str(grace_s), timeout=grace_s + 60)
    return parse_session(result.stdout, layout)[0]


def sessions(remote: Remote, layout: Layout) -> tuple[Session, ...]:
    """Return every session of the run, oldest first; one round trip."""
    result = remote.script(script("session-list.sh"), layout.root)
    return tuple(parse_session(line, layout)[0] for line in result.stdout.splitlines())


def attach_command(session: Session) -> list[str]:
    """Return the words to give `ssh -t` to enter the session's screen, beside others in it.

    They hold no character a shell would change. Without screen it shows the log instead.
    """
    return ["bash", str(PurePosixPath(session.log).parent / "attach.sh")]


def parse_session(line: str, layout: Layout) -> tuple[Session, str]:
    """Read one line of session-lib.sh's `describe`: the session, and its kind.

    Raises `StepError` when the machine's answer is something else.
    """
    fields = line.rstrip("\n").split("\t")
    if len(fields) != 9 or not fields[0].isdigit():
        raise StepError(f"the machine gave a strange answer about a session: `{line.strip()[:200]}`")
    number, kind, state, screen, run_dir, began, ended, code, stopped = fields
    session = Session(
        number=int(number),
        screen=screen,
        state=cast("SessionState", state),
        run_dir=run_dir or layout.run_dir(int(number)),
        log=f"{layout.session(int(number))}/train.log",
        started=_time(began),
        ended=_time(ended),
        exit_code=int(code) if code else None,
        stopped=bool(stopped),
    )
    return session, kind


def starting(
    layout: Layout,
    *,
    kind: str,
    argv: list[str],
    env: dict[str, str],
    python: str,
    number: int,
    screen: str,
    outputs: tuple[str, ...] = (),
    resume_from: str | None = None,
    guard: dict[str, object] | None = None,
    container: Container | None = None,
    sweep: dict[str, object] | None = None,
) -> tuple[str, str]:
    """Return the supervisor's script, and the one that writes it down and starts it."""
    from cloudtrain.render import render  # the template engine costs 0.1 s, and only a start needs it

    bin_dir = str(PurePosixPath(python).parent) if "/" in python else ""
    common = {
        "dir": layout.session(number),
        "run_dir": layout.run_dir(number),
        "screen": screen,
        "kind": kind,
    }
    supervisor = render(
        "session.sh.j2",
        **common,
        argv=argv,
        env=env,
        python=python,
        container=container,
        secured=layout.secured(number),
        bin=bin_dir,
        prefix=str(PurePosixPath(bin_dir).parent),
        runs=f"{layout.root}/runs",
        project=layout.project,
        settings=json.dumps(settings(layout)),
    )
    plan = {
        "kind": kind,
        "argv": argv,
        "run_dir": layout.run_dir(number),
        "secured": layout.secured(number),
        "session": layout.session(number),
        "project": layout.project,
        "outputs": list(outputs),
        "resume_from": resume_from,
        "sweep": sweep,
    }
    start = render(
        "session-start.sh.j2",
        **common,
        script=supervisor,
        attach=(shipped("templates") / "session-attach.sh").read_text(),
        resume=render("session-resume.sh.j2", **common),
        plan=json.dumps(plan),
        modules=modules(),
        root=layout.root,
        python=python,
        guard=json.dumps(guard) if guard else "",
        guard_program=program() if guard else "",
    )
    return supervisor, start


@dataclass(frozen=True, slots=True)
class Container:
    """What the supervisor starts instead of the trainer: `docker run` with `words`, then `command`.

    `variables` are names whose values it takes from the supervisor, so that none is in an argument
    list; `home` is HOME inside.
    """

    name: str
    words: tuple[str, ...]
    variables: tuple[str, ...]
    command: tuple[str, ...]
    home: str


_PASSED_ON = (
    "CLOUDTRAIN_SECURED", "CLOUDTRAIN_NOTICE", "PYTHONPATH", "YOLO_OFFLINE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
_INSIDE = """\
import os, sys
log = os.open(sys.argv[1] + "/train.log", os.O_WRONLY | os.O_APPEND)
os.dup2(log, 1), os.dup2(log, 2)
sys.path[0] = sys.argv[1] + "/lib"
from cloudtrain_training.begin import main
main(sys.argv[1] + "/plan.json")
"""
"""Runs in the container before the trainer: our `begin`, its output going where a session's goes."""


def _container(
    config: Config, facts: Facts, layout: Layout, argv: list[str], env: dict[str, str], number: int
) -> Container | None:
    if config.runtime != "docker":
        return None
    session = layout.session(number)
    words = models_container.options(config, facts, layout)
    if argv[0] == "bash":  # a script's shell hands no signal on to what it runs; init then does
        words += ["--env", "TINI_KILL_PROCESS_GROUP=1"]
    return Container(
        name=f"ct-{PurePosixPath(layout.root).name}-{number:03d}",
        words=(*words, models_container.image_of(config, layout)),
        variables=(*env, *_PASSED_ON),
        command=(config.docker.python, "-c", _INSIDE, session),
        home=f"{layout.root}/home",
    )


def modules() -> dict[str, str]:
    """Return what runs beside the trainer, by file name: cloudtrain/training/machine, as it is."""
    folder = Path(__file__).parent / "machine"
    return {path.name: path.read_text() for path in sorted(folder.glob("*.py"))}


def _time(epoch: str) -> datetime | None:
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else None
