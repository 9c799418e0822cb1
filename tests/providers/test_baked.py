"""`image: auto`: the caller's newest image of the recipe, then the Deep Learning image, then Ubuntu."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from cloudtrain.catalog.recipe import digest
from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config, Environment, Instance
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import RECIPE, USER, run_tags
from cloudtrain.providers.aws.provider import AwsProvider
from cloudtrain.providers.base import AccessSpec
from cloudtrain.providers.ssh.provider import SshProvider
from tests.providers.test_launch import KEY, SPEC, Stored
from tests.sandbox.support import until
from tests.support.sandbox import Running, started


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    with started(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture(scope="module")
def machine(cloud: Running) -> str:
    provider = cloud.provider()
    run = RunRef("oven", "0123abcd", provider.identity().owner)
    access = provider.prepare_access(AccessSpec(run, KEY, "127.0.0.1", provider.ssh_port))
    spec = replace(
        SPEC,
        image=provider.survey(Config()).image,
        zone=None,
        key_name=access.key_name,
        security_group=access.security_group,
        tags=run_tags(run),
    )
    launched = provider.launch(spec, "token-oven", Stored())
    return provider.wait_running(launched.id, 60).id


def baked(provider: AwsProvider, machine: str, name: str, config: Config, owner: str | None = None) -> str:
    run = RunRef("oven", "0123abcd", owner or provider.identity().owner)
    tags = {**run_tags(run), RECIPE: digest(config), USER: "trainer"}
    image = provider.create_image(machine, name, tags)
    until(lambda: _state(provider, image) == "available", "it is never available")
    return image


def _state(provider: AwsProvider, image: str) -> str:
    ec2: Any = provider.clients.ec2
    return str(ec2.describe_images(ImageIds=[image])["Images"][0]["State"])


def test_auto(cloud: Running, machine: str) -> None:
    provider = cloud.provider()
    plain = Config()
    other = Config(environment=Environment(manager="uv"))
    allowed = Config(instance=Instance(dlami=True))
    assert "ubuntu-noble-24.04" in provider.survey(plain).image.name
    assert "Deep Learning" in provider.survey(allowed).image.name

    baked(provider, machine, "of a colleague", plain, owner="0" * 12)
    assert not provider.survey(plain).image.baked
    first = baked(provider, machine, "mine", plain)
    found = provider.survey(plain).image
    assert (found.id, found.user, found.baked) == (first, "trainer", True)
    assert not provider.survey(other).image.baked
    assert not provider.survey(allowed).image.baked  # it would be made from another base
    assert not provider.survey(Config(instance=Instance(image="ubuntu-24.04"))).image.baked

    mine = baked(provider, machine, "mine too", allowed)
    assert provider.survey(allowed).image.id == mine
    listed = provider.images(provider.identity().owner)
    assert {one.id for one in listed} == {first, mine}
    assert all(one.snapshots and one.price_month == one.size_gb * 0.05 for one in listed)


def test_hosts_of_ones_own_have_no_images() -> None:
    provider = SshProvider(())
    assert provider.images("me") == ()
    with pytest.raises(UsageError, match="no image of a host"):
        provider.create_image("host", "name", {})
