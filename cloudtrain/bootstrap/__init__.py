"""From a machine that answers SSH to one that can train, by steps that can run twice.

`steps` says which steps a machine needs considered (pure); `converge` checks them all
in one round trip and applies what is missing; `on_demand` adds a tool later.
"""

from cloudtrain.bootstrap.engine import converge
from cloudtrain.bootstrap.environment import environment_python
from cloudtrain.bootstrap.limits import limits, refusals
from cloudtrain.bootstrap.ondemand import on_demand
from cloudtrain.bootstrap.scripts import REBOOT_NEEDED
from cloudtrain.bootstrap.step import Step
from cloudtrain.bootstrap.steps import steps

__all__ = [
    "REBOOT_NEEDED",
    "Step",
    "converge",
    "environment_python",
    "limits",
    "on_demand",
    "refusals",
    "steps",
]
