"""The guard on machines that boot: user data as it is sent, systemd, reboot, power-off, metadata."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.models.config import Config, Lease, Train
from cloudtrain.models.run import Layout
from cloudtrain.provision.userdata import user_data
from cloudtrain.ssh.remote import connect
from cloudtrain.training import sessions, start
from tests.sandbox.conftest import Cloud
from tests.sandbox.support import until
from tests.support.nspawn import started, target
from tests.support.thorough import also
from tests.training.conftest import SLUG, facts

pytestmark = pytest.mark.timeout(400)
STATE = "/var/lib/cloudtrain-guard"
TAGS = {"MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"}}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    with started(tmp_path_factory.mktemp("guard") / "state") as made:
        yield made


@pytest.fixture
def launched(cloud: Cloud) -> Iterator[Any]:
    names: list[str] = []

    def launch(seconds: float) -> str:
        deadline = datetime.now(UTC) + timedelta(seconds=seconds)
        data = user_data(
            host_key=cloud.host, user_public=cloud.user.public, deadline=deadline, lease=Lease(idle_minutes=5)
        )
        tags = [{"Key": "cloudtrain-deadline", "Value": str(int(deadline.timestamp()))}]
        name = cloud.running(
            UserData=data,
            InstanceInitiatedShutdownBehavior="stop",
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
            **TAGS,
        )
        names.append(name)
        return name

    yield launch
    for name in names:
        if cloud.state_of(name) != "terminated":
            cloud.end(name)


def said(cloud: Cloud, name: str, file: str) -> dict[str, Any]:
    text = cloud.ssh(name, f"cat {STATE}/{file}", code=None)
    return json.loads(text) if text.startswith("{") else {}


def extend(cloud: Cloud, name: str, seconds: float) -> int:
    deadline = int(time.time() + seconds)
    cloud.ec2.create_tags(Resources=[name], Tags=[{"Key": "cloudtrain-deadline", "Value": str(deadline)}])
    return deadline


def test_whoever_gets_in_first_finds_the_guard(cloud: Cloud, launched: Any) -> None:
    name = launched(3600)
    # The first answer of sshd; cloud-init is still at work then.
    assert cloud.ssh(name, "systemctl is-active cloudtrain-guard", code=None).strip() == "active"
    cloud.booted(name)
    assert cloud.ssh(name, "systemctl is-enabled cloudtrain-guard").strip() == "enabled"
    pid = cloud.ssh(name, "systemctl show -p MainPID --value cloudtrain-guard").strip()
    cloud.ssh(name, f"sudo kill -9 {pid}")
    until(
        lambda: (
            cloud.ssh(name, "systemctl show -p MainPID --value cloudtrain-guard").strip() not in (pid, "0")
        ),
        "it did not come again",
    )
    later = extend(cloud, name, 7200)
    until(
        lambda: said(cloud, name, "status.json").get("deadline") == later, "the tag was not read", timeout=30
    )


def test_the_lease_ends_the_machine_and_the_boot_after_it_is_a_rescue(cloud: Cloud, launched: Any) -> None:
    name = launched(25)
    began = time.monotonic()
    until(lambda: cloud.state_of(name) == "stopped", "it outstayed its lease", timeout=90)
    assert time.monotonic() - began < 80
    cloud.ec2.start_instances(InstanceIds=[name])
    cloud.until(name, "running")
    assert said(cloud, name, "receipt.json")["why"] == "deadline"
    until(lambda: said(cloud, name, "status.json").get("rescue") is True, "no rescue window", timeout=30)
    extend(cloud, name, 3600)
    until(lambda: said(cloud, name, "status.json").get("rescue") is False, "not extended", timeout=30)


COUNTING = """
import os, pathlib, time, zipfile
run = pathlib.Path(os.environ["CLOUDTRAIN_RUN_DIR"])
done = 0
if os.environ.get("CLOUDTRAIN_RESUME"):
    done = int(zipfile.ZipFile(os.environ["CLOUDTRAIN_RESUME"]).read("epoch"))
print(f"from {done}", flush=True)
while not pathlib.Path("enough").exists():
    time.sleep(1)
    done += 1
    with zipfile.ZipFile(run / "last.pt", "w") as container:
        container.writestr("epoch", str(done))
    print(f"epoch {done}", flush=True)
"""


@pytest.mark.parametrize("how", [also("reboot"), "reboot --force --force", "stop and start"])
def test_a_training_goes_on_by_itself(cloud: Cloud, launched: Any, how: str) -> None:
    name = launched(3600)
    cloud.booted(name)
    layout = Layout(f"/home/ubuntu/cloudtrain/{SLUG}")
    cloud.ssh(name, f"mkdir -p {layout.project}; cat >{layout.project}/train.py <<'X'\n{COUNTING}\nX")
    config = Config(train=Train(kind="script", command="exec python3 train.py"))
    with connect(target(cloud, name)) as remote:
        session = start(
            remote, config, layout, slug=SLUG, python="/usr/bin/python3", number=1,
            dataset_yaml=None, model="", facts=replace(facts(), root=False),
        )  # fmt: skip
    secured = f"cat {layout.session(1)}/secured"
    until(lambda: '"file"' in cloud.ssh(name, secured, code=None), "nothing secured", timeout=40)
    if how == "stop and start":
        cloud.ec2.stop_instances(InstanceIds=[name])
        cloud.until(name, "stopped")
        cloud.ec2.start_instances(InstanceIds=[name])
        cloud.until(name, "running")
    else:
        before = cloud.ssh(name, "cat /proc/sys/kernel/random/boot_id")
        cloud.ssh(name, f"sudo {how}", code=None)
        until(
            lambda: cloud.ssh(name, "cat /proc/sys/kernel/random/boot_id", code=None) not in ("", before),
            "it did not come back",
            timeout=90,
        )
    log = f"cat {layout.session(1)}/train.log"
    until(lambda: cloud.ssh(name, log, code=None).count("from ") == 2, "it did not go on", timeout=60)
    text = cloud.ssh(name, log)
    again = int(text.rpartition("from ")[2].split()[0])
    done = int(text.partition("cloudtrain: going on")[0].rstrip().rpartition("epoch ")[2])
    assert 0 < again <= done
    with connect(target(cloud, name)) as remote:
        now = sessions(remote, layout)[0]
        assert (now.state, now.screen, now.run_dir) == ("running", session.screen, session.run_dir)
        assert session.screen in remote.run("screen -ls", check=False).stdout
        remote.run(f"touch {layout.project}/enough")
        until(lambda: sessions(remote, layout)[0].state == "finished", "it did not finish", timeout=30)
    lost = done - again
    print(f"{how}: {lost} of {done} one-second epochs lost")  # noqa: T201


def test_files_of_ours_lie_where_they_should(cloud: Cloud, launched: Any) -> None:
    name = launched(3600)
    cloud.booted(name)
    assert cloud.ssh(name, "stat -c %U:%a /usr/local/lib/cloudtrain/guard.py /etc/cloudtrain/guard.json").split() == [
        "root:644", "root:644",
    ]  # fmt: skip
    assert Path(STATE).parent.is_dir()
    assert cloud.ssh(name, "systemctl --failed --no-legend", code=None) == ""
