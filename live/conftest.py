"""The gate of the live tests: asked for, told what they cost, swept before and after."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from cloudtrain.models.plan import Found
from cloudtrain.models.run import RunRef
from cloudtrain.providers.aws.client import Settings
from cloudtrain.providers.aws.provider import AwsProvider

COST = (
    "live tests: three small machines on demand and one as spot, minutes each, and an image for minutes:"
    " less than 0.30 USD on the account {owner} in {region}{gpu}"
)
GPU_COST = "; LIVE_GPU=1: three machines with a GPU, a quarter of an hour each, less than 1 USD more"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything here unless it was asked for."""
    if os.environ.get("CLOUDTRAIN_LIVE") == "1":
        return
    skip = pytest.mark.skip(reason="needs a real AWS account: CLOUDTRAIN_LIVE=1")
    for item in items:
        if "live" in item.path.parts:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def provider() -> AwsProvider:
    """The account that the environment names."""
    return AwsProvider(Settings(region=os.environ.get("AWS_REGION")))


@pytest.fixture(scope="session")
def run(provider: AwsProvider) -> RunRef:
    """The run that everything here belongs to."""
    return RunRef("live-test", os.urandom(4).hex(), provider.identity().owner)


@pytest.fixture(scope="session", autouse=True)
def swept(provider: AwsProvider, run: RunRef, pytestconfig: pytest.Config) -> Generator[None]:
    """Say what it costs, refuse to start beside other live tests, and leave nothing."""
    reporter: Any = pytestconfig.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        gpu = GPU_COST if os.environ.get("LIVE_GPU") == "1" else ""
        reporter.write_line(COST.format(owner=run.owner, region=provider.clients.region, gpu=gpu))
    before = ours(provider)
    assert not before, f"live tests have left something: {before}"
    yield
    provider.remove(tuple(ours(provider)))
    assert not ours(provider)


def ours(provider: AwsProvider) -> list[Found]:
    """Return what live tests have made in this region."""
    found = provider.sweep(provider.identity().owner, (provider.clients.region,)).found
    return [one for one in found if one.mine and one.run.startswith("live-test-")]
