"""Adds a tool to the environment when a command first needs it, and not before."""

from __future__ import annotations

import dataclasses

from cloudtrain.bootstrap.engine import converge
from cloudtrain.bootstrap.packages import frozen, install, present, target
from cloudtrain.errors import RefusedError
from cloudtrain.events import Silent, Timeline
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.models.training import StepReport
from cloudtrain.ssh.remote import Remote


def on_demand(
    remote: Remote,
    config: Config,
    facts: Facts,
    layout: Layout,
    package: str,
    *,
    timeline: Timeline | None = None,
) -> StepReport:
    """Install `package` into the run's environment if it is not there: `satisfied` or `changed`.

    `package` is as pip spells it, such as `jupyterlab` or `tensorboard`.

    Raises `RefusedError` when it is missing in an environment that is not ours to change,
    `StepError` when it cannot be installed.
    """
    place = target(config, facts, layout)
    found = install(place, package, f"`{package}` was asked for", (package,))
    assert found is not None  # one name was asked for
    # Whatever version is there will do: the trainer may have brought it.
    step = dataclasses.replace(found, check=present(place, (package,)))
    times = timeline or Timeline(Silent())
    if frozen(config):
        (report,) = converge(remote, (step,), layout, times, dry_run=True)
        if report.outcome == "satisfied":
            return report
        raise RefusedError(
            f"`{package}` is missing in `{place.python}`, which cloudtrain leaves as it is",
            hint=f"run `{place.install} {package}` on the machine",
        )
    return converge(remote, (step,), layout, times)[0]
