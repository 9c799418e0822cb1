"""What every provider keeps, run against real HTTP and real machines.

One suite over EC2 as the sandbox emulates it and over hosts of the user's own; what only
a cloud has (prices, tags in an account, volumes) is asked of the cloud alone.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.errors import CloudError, GoneError, UsageError
from cloudtrain.journal.folder import RunFolder, create
from cloudtrain.models.config import Config, Host, Instance
from cloudtrain.models.machine import Machine, SshTarget
from cloudtrain.models.plan import LaunchSpec
from cloudtrain.models.tags import run_tags
from cloudtrain.providers.aws.provider import AwsProvider
from cloudtrain.providers.base import AccessSpec, Provider
from cloudtrain.providers.ssh.provider import SshProvider
from cloudtrain.provision.apply import ensure_keys
from cloudtrain.provision.userdata import LIMIT, user_data
from cloudtrain.ssh.keys import fingerprint
from cloudtrain.ssh.remote import connect_when_ready
from tests.support.sandbox import Running, started
from tests.support.sshd import Sshd


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    with started(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def ec2(cloud: Running) -> AwsProvider:
    return cloud.provider()


@pytest.fixture(params=["sandbox", "ssh"])
def provider(request: pytest.FixtureRequest) -> Provider:
    if request.param == "sandbox":
        return request.getfixturevalue("ec2")
    server: Sshd = request.getfixturevalue("sshd")
    host = Host(
        address="127.0.0.1",
        port=server.port,
        user=server.target.user,
        key=str(server.target.key),
        fingerprint=fingerprint(server.host_key.public),
    )
    return SshProvider((host,))


@pytest.fixture
def folder(provider: Provider, tmp_path: Path) -> Generator[RunFolder]:
    """A run with nothing launched yet; whatever a test makes of it ends with it."""
    yield from run_of(provider, tmp_path)


@pytest.fixture
def ec2_folder(ec2: AwsProvider, tmp_path: Path) -> Generator[RunFolder]:
    yield from run_of(ec2, tmp_path)


def run_of(provider: Provider, project: Path) -> Generator[RunFolder]:
    identity = provider.identity()
    run = create(
        name="contract",
        owner=identity.owner,
        provider=provider.name,
        region=identity.region,
        project=project,
    )
    yield run
    observed = provider.observe(run.run())
    provider.terminate(tuple(m.id for m in observed.machines if m.alive), 60)
    provider.release_access(run.run())


def prepare(provider: Provider, folder: RunFolder) -> LaunchSpec:
    user, host = ensure_keys(folder, fresh=False)
    survey = provider.survey(Config())
    access = provider.prepare_access(
        AccessSpec(run=folder.run(), public_key=user.public, ingress="127.0.0.1", port=provider.ssh_port)
    )
    return LaunchSpec(
        type=survey.offers[0].type,
        market="on-demand",
        zone=None,
        image=survey.image,
        volume_gb=28,
        user_data=user_data(
            host_key=host, user_public=user.public, deadline=datetime.now(UTC) + timedelta(hours=1)
        ),
        key_name=access.key_name,
        security_group=access.security_group,
        subnet=None,
        tags=run_tags(folder.run()),
        after_power_off="stop",
    )


def way_to(provider: Provider, folder: RunFolder, machine: Machine) -> SshTarget:
    folder.update(address=machine.address, port=provider.ssh_port, user=provider.ssh_user or "ubuntu")
    folder.admit(machine.login)
    return folder.target()


def test_a_survey_answers_even_where_advice_is_denied(ec2: AwsProvider) -> None:
    survey = ec2.survey(Config())
    assert survey.image.id.startswith("ami-")
    assert survey.image.user == "ubuntu"
    assert survey.image.floor_gb >= 8
    assert survey.offers[0].type == "g4dn.xlarge"
    assert survey.offers[0].gpu_count == 1
    assert survey.offers[0].price_hour == pytest.approx(0.526)
    assert survey.ingress == "127.0.0.1"


def test_a_type_that_does_not_exist_is_a_usage_error(ec2: AwsProvider) -> None:
    with pytest.raises(UsageError, match="g4dnn"):
        ec2.survey(Config(instance=Instance(type=("g4dnn.xlarge",))))


def test_access_twice_is_once(ec2: AwsProvider, ec2_folder: RunFolder) -> None:
    first = prepare(ec2, ec2_folder)
    assert prepare(ec2, ec2_folder).security_group == first.security_group
    observed = ec2.observe(ec2_folder.run())
    assert observed.key_pair == first.key_name
    assert observed.security_group == first.security_group


def test_a_machine_answers_with_the_key_that_was_pinned_before_it_existed(
    provider: Provider, folder: RunFolder
) -> None:
    spec = prepare(provider, folder)
    machine = provider.launch(spec, "token-ssh-" + folder.path.name, folder)
    running = provider.wait_running(machine.id, 60)
    with connect_when_ready(way_to(provider, folder, running), deadline_s=30) as remote:
        assert remote.run("echo here").stdout == "here\n"


def test_a_token_means_one_machine_however_often_it_is_asked(provider: Provider, folder: RunFolder) -> None:
    spec = prepare(provider, folder)
    token = "token-once-" + folder.path.name
    first = provider.launch(spec, token, folder)
    other = replace(spec, type="g4dn.2xlarge")
    assert provider.launch(other, token, folder).id == first.id
    assert provider.launch(None, token, folder).id == first.id
    provider.wait_running(first.id, 60)
    assert len(provider.observe(folder.run()).machines) == 1
    provider.terminate((first.id,), 60)
    with pytest.raises(GoneError):
        provider.launch(None, token, folder)


def test_a_replay_without_a_stored_request_launches_nothing(provider: Provider, folder: RunFolder) -> None:
    with pytest.raises(GoneError):
        provider.launch(None, "never-stored", folder)
    assert provider.observe(folder.run()).machines == ()


def test_stop_and_start_keep_the_disk_and_the_host_key(ec2: AwsProvider, ec2_folder: RunFolder) -> None:
    machine = ec2.launch(prepare(ec2, ec2_folder), "token-stop-" + ec2_folder.path.name, ec2_folder)
    running = ec2.wait_running(machine.id, 60)
    with connect_when_ready(way_to(ec2, ec2_folder, running), deadline_s=30) as remote:
        remote.run("echo kept > kept")
    ec2.stop(machine.id)
    ec2.stop(machine.id)
    ec2.start(machine.id)
    again = ec2.wait_running(machine.id, 60)
    with connect_when_ready(way_to(ec2, ec2_folder, again), deadline_s=30) as remote:
        assert remote.run("cat kept").stdout == "kept\n"


def test_everything_carries_its_tags_from_the_launch_call_on(ec2: AwsProvider, ec2_folder: RunFolder) -> None:
    machine = ec2.launch(prepare(ec2, ec2_folder), "token-tags-" + ec2_folder.path.name, ec2_folder)
    ec2.wait_running(machine.id, 60)
    owner = ec2_folder.record().owner
    kinds = {found.kind for found in ec2.everything(owner) if found.run == ec2_folder.path.name}
    assert {"instance", "volume", "key-pair", "security-group"} <= kinds
    assert all(found.mine for found in ec2.everything(owner))


def test_the_end_leaves_nothing_and_may_come_twice(provider: Provider, folder: RunFolder) -> None:
    machine = provider.launch(prepare(provider, folder), "token-end-" + folder.path.name, folder)
    provider.terminate((machine.id,), 60)
    provider.terminate((machine.id,), 60)
    provider.release_access(folder.run())
    provider.release_access(folder.run())
    assert provider.observe(folder.run()).empty


def test_the_root_volume_is_encrypted_and_goes_with_the_machine(
    ec2: AwsProvider, ec2_folder: RunFolder
) -> None:
    machine = ec2.launch(prepare(ec2, ec2_folder), "token-vol-" + ec2_folder.path.name, ec2_folder)
    ec2.wait_running(machine.id, 60)
    calls: Any = ec2.clients.ec2
    instance = calls.describe_instances(InstanceIds=[machine.id])["Reservations"][0]["Instances"][0]
    volume = calls.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [machine.id]}])[
        "Volumes"
    ][0]
    assert volume["Encrypted"] is True
    assert instance["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is True
    assert instance["MetadataOptions"]["HttpTokens"] == "required"


def test_a_machine_that_never_was_is_not_waited_for_for_ever(provider: Provider) -> None:
    began = time.monotonic()
    with pytest.raises(CloudError, match=r"did not start|was not taken"):
        provider.wait_running("i-0123456789abcdef0", 0.5)
    assert time.monotonic() - began < 10


def test_user_data_is_below_the_limit_with_room(ec2_folder: RunFolder) -> None:
    user, host = ensure_keys(ec2_folder, fresh=False)
    text = user_data(host_key=host, user_public=user.public, deadline=datetime.now(UTC))
    assert len(text.encode()) < LIMIT - 1024
    assert text.startswith("#cloud-config\n")
