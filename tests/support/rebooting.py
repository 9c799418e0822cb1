"""Runs one command of cloudtrain with one step more: something that only a boot can load.

    python -m tests.support.rebooting VERB [ARGUMENT...]

It stands for a driver whose module the running kernel cannot take: it asks for a reboot, and
holds once the machine has booted again. The environment waits for it.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from cloudtrain import bootstrap
from cloudtrain.__main__ import main
from cloudtrain.bootstrap import Step
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout

KERNEL = Step(
    name="kernel",
    reason="something that only a boot can load",
    check='[ -e /var/lib/asked ] && [ "$(cat /var/lib/asked)" != "$(cat /proc/sys/kernel/random/boot_id)" ]',
    apply="cat /proc/sys/kernel/random/boot_id >/var/lib/asked; exit 194",
    needs=("base",),
    root=True,
    lock="apt",
)


def with_kernel(config: Config, facts: Facts, layout: Layout) -> tuple[Step, ...]:
    """Return the machine's steps, with `kernel` before the environment."""
    found: list[Step] = []
    for step in bootstrap_steps(config, facts, layout):
        if step.name == "environment":
            found += [KERNEL, replace(step, needs=(*step.needs, KERNEL.name))]
        else:
            found.append(step)
    return tuple(found)


if __name__ == "__main__":
    bootstrap_steps = bootstrap.steps
    bootstrap.steps = with_kernel
    sys.argv = ["cloudtrain", *sys.argv[1:]]
    main()
