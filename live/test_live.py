"""What only a real account can answer. Reads first, then two machines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cloudtrain.errors import CloudError, GoneError, UsageError
from cloudtrain.models.account import OfferQuery
from cloudtrain.models.config import Config, Instance
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import LaunchSpec
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import run_tags
from cloudtrain.providers.aws.provider import AwsProvider
from cloudtrain.providers.base import AccessSpec
from cloudtrain.ssh import keys

TYPE = os.environ.get("LIVE_TYPE", "t3.small")
POWER_OFF = "#cloud-config\nruncmd:\n  - [shutdown, -h, now]\n"
pytestmark = pytest.mark.live


@dataclass
class Stored:
    """Launch requests in memory."""

    kept: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def store(self, token: str, request: bytes) -> None:
        self.kept[token] = request

    def load(self, token: str) -> bytes | None:
        return self.kept.get(token)


def until(condition: Callable[[], bool], what: str, timeout_s: float = 600) -> None:
    """Wait for AWS, which tells nobody when it is done."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(5)


def spec(provider: AwsProvider, run: RunRef, **changes: Any) -> LaunchSpec:
    """Return a launch of the smallest ordinary machine."""
    survey = provider.survey(Config(instance=Instance(type=(TYPE,))))
    key = keys.generate("live").public
    access = provider.prepare_access(AccessSpec(run, key, survey.ingress, 22))
    given: dict[str, Any] = {
        "type": TYPE,
        "market": "on-demand",
        "zone": None,
        "image": survey.image,
        "volume_gb": max(8, survey.image.floor_gb),
        "user_data": "#cloud-config\n",
        "key_name": access.key_name,
        "security_group": access.security_group,
        "subnet": None,
        "tags": run_tags(run),
        "after_power_off": "stop",
    }
    return LaunchSpec(**{**given, **changes})


def machine_of(provider: AwsProvider, run: RunRef, machine_id: str) -> Machine:
    """Return a machine as it is now."""
    return next(one for one in provider.observe(run).machines if one.id == machine_id)


def test_read(provider: AwsProvider) -> None:
    config = Config(instance=Instance(type=("g4dn.xlarge",), market="spot-then-on-demand"))
    survey = provider.survey(config)
    assert survey.missing == ()
    assert all(offer.price_hour and offer.price_source == "api" for offer in survey.offers)
    assert survey.rates.source == "api", "the price list's names for gp3 and addresses have changed"
    assert "24.04" in survey.image.name
    listed = provider.offers(OfferQuery(gpu="T4"))
    assert listed.missing == ()
    assert {"g4dn.xlarge", "g4dn.12xlarge"} <= {offer.type for offer in listed.offers}
    for market in ("on-demand", "spot"):
        quota = provider.quota("g4dn.xlarge", market)
        assert quota.allowed is not None, quota.missing
    for probe in provider.probes(config):
        check = probe.ask()
        assert check.state == "ok" or check.remedy, check
    sweep = provider.sweep(provider.identity().owner)
    assert len(sweep.regions) > 1
    assert sweep.missing == ()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"type": ("t3.smaller",)}, UsageError),
        ({"image": "ami-0123456789abcdef0"}, UsageError),
        ({"subnet": "subnet-0123456789abcdef0"}, UsageError),
        ({"security_group": "sg-0123456789abcdef0"}, UsageError),
    ],
)
def test_refusals(provider: AwsProvider, changes: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        provider.survey(Config(instance=replace(Instance(type=(TYPE,)), **changes)))


def test_machine(provider: AwsProvider, run: RunRef) -> None:
    wanted, stored = spec(provider, run), Stored()
    with pytest.raises(CloudError) as small:
        provider.launch(replace(wanted, volume_gb=1), f"small-{run.id}", Stored())
    assert small.value.code == "InvalidBlockDeviceMapping"
    machine = provider.launch(wanted, f"one-{run.id}", stored)
    assert provider.launch(None, f"one-{run.id}", stored).id == machine.id
    assert provider.wait_running(machine.id, 300).address
    kinds = {one.kind for one in provider.sweep(run.owner, (provider.clients.region,)).found}
    assert {"instance", "volume", "interface", "security-group", "key-pair"} <= kinds
    ec2 = provider.clients.ec2
    until(lambda: bool(ec2.get_console_output(InstanceId=machine.id, Latest=True).get("Output")), "console")
    provider.stop(machine.id)
    until(lambda: machine_of(provider, run, machine.id).state == "stopped", "it does not stop")
    provider.start(machine.id)
    provider.wait_running(machine.id, 300)
    provider.terminate((machine.id,), 300)
    with pytest.raises(GoneError):
        provider.launch(None, f"one-{run.id}", stored)


def test_spot(provider: AwsProvider, run: RunRef) -> None:
    """A power-off from inside stops a persistent spot machine, as a user's stop does."""
    wanted = spec(provider, run, market="spot", user_data=POWER_OFF)
    machine = provider.launch(wanted, f"spot-{run.id}", Stored())
    ends = ("stopped", "terminated", "shutting-down")
    until(lambda: machine_of(provider, run, machine.id).state in ends, "it does not power off")
    assert machine_of(provider, run, machine.id).state == "stopped"
    provider.terminate((machine.id,), 300)
    until(lambda: not provider.observe(run).leftovers, "its request is still open")
    assert [one.id for one in provider.observe(run).machines if one.alive] == []


@pytest.mark.skipif(not os.environ.get("AWS_REGION", "").startswith("cn-"), reason="aws-cn only")
def test_china(provider: AwsProvider) -> None:
    ssm = provider.clients.ssm
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    assert str(ssm.get_parameter(Name=name)["Parameter"].get("Value")).startswith("ami-")
    survey = provider.survey(Config(instance=Instance(type=(TYPE,))))
    assert survey.offers[0].currency == "CNY"
    assert survey.offers[0].price_source == "api"
