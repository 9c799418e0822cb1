"""The guard of a machine, its metadata service, and what a power-off makes of the instance."""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
from collections.abc import Generator
from typing import Any

import pytest

from cloudtrain.providers import sandbox
from cloudtrain.sandbox.power import STATE, guard_of
from tests.sandbox.conftest import Cloud, start
from tests.sandbox.support import DELAYS, processes_with, until
from tests.support.faults import give_back, reclaim, recommend

PERSISTENT = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
SPOT = {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": PERSISTENT}}
STAND_IN = """
import glob, json, subprocess, sys, time, urllib.request
config = json.load(open(sys.argv[1]))
def ask(path):
    head = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    put = urllib.request.Request(config["imds"] + "/latest/api/token", method="PUT", headers=head)
    token = urllib.request.urlopen(put).read().decode()
    get = urllib.request.Request(config["imds"] + "/latest/meta-data/" + path)
    get.add_header("X-aws-ec2-metadata-token", token)
    return urllib.request.urlopen(get).read().decode()
first = time.clock_gettime(time.CLOCK_BOOTTIME)
seen = {"id": ask("instance-id"), "uptime": first, "config": config}
with open(config["state"] + "/seen.part", "w") as file:
    json.dump(seen, file)
import os
os.replace(config["state"] + "/seen.part", config["state"] + "/seen.json")
while True:
    up = time.clock_gettime(time.CLOCK_BOOTTIME) - config["booted"]
    contact = any(glob.glob(pattern) for pattern in config["contact"])
    if time.time() > config["deadline"] or (not contact and up > config["first_contact_s"]):
        subprocess.run(config["poweroff"], check=True)
        time.sleep(600)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    state = tmp_path_factory.mktemp("power") / "state"
    try:
        yield start(state, f"{DELAYS},relaunch=0.6,restore=0.2,pushed_key=1.5")
    finally:
        sandbox.stop(state)


def guarded(cloud: Cloud, **changes: Any) -> str:
    config = {
        "deadline": time.time() + 600,
        "first_contact_s": 1200,
        "contact": ["/home/*/cloudtrain", "/root/cloudtrain"],
        "state": "/var/lib/cloudtrain-guard",
        "imds": "http://169.254.169.254",
        "poweroff": ["systemctl", "poweroff"],
        **changes,
    }
    packed = base64.b64encode(gzip.compress(STAND_IN.encode())).decode()
    entries = [
        {"path": "/usr/local/lib/cloudtrain/guard.py", "encoding": "gz+b64", "content": packed},
        {"path": "/etc/cloudtrain/guard.json", "content": json.dumps(config)},
    ]
    return f"{cloud.user_data()}write_files: {json.dumps(entries)}\n"


def seen(cloud: Cloud, name: str) -> dict[str, Any]:
    read = f"cat {STATE}/seen.json 2>/dev/null"
    until(lambda: cloud.ssh(name, read, code=None) != "", "the guard does not run")
    found: dict[str, Any] = json.loads(cloud.ssh(name, read))
    return found


def ask(cloud: Cloud, name: str, path: str) -> tuple[str, str]:
    script = (
        'T=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" '
        '"$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token"); curl -s -w " %{http_code}" '
        f'-H "X-aws-ec2-metadata-token: $T" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/{path}"'
    )
    text, _, status = cloud.ssh(name, script).rpartition(" ")
    return status, text


def test_the_guard_runs_for_the_life_of_the_machine_in_its_own_world(cloud: Cloud) -> None:
    name = cloud.running(UserData=guarded(cloud))
    found = seen(cloud, name)
    home = cloud.ssh(name, "echo $HOME").strip()
    config = found["config"]
    assert found["id"] == name
    assert config["contact"] == [f"{home}/cloudtrain"]
    assert config["state"] == f"{home}/{STATE}"
    if os.geteuid() == 0:
        assert found["uptime"] < 30
        assert config["first_contact_s"] == 1200
    cloud.ssh(name, "test ! -w /home/.machine/guard.py -a ! -w /home/.machine/guard.json")
    cloud.ssh(name, f"pkill -f '[g]uard.py .*json'; rm {STATE}/seen.json")
    assert seen(cloud, name)["id"] == name
    cloud.end(name)
    assert processes_with(name) == []


@pytest.mark.parametrize(("behaviour", "ending"), [("stop", "stopped"), ("terminate", "terminated")])
def test_past_the_deadline_it_ends_as_its_shutdown_behaviour_says(
    cloud: Cloud, behaviour: str, ending: str
) -> None:
    data = guarded(cloud, deadline=time.time() + 2)
    name = cloud.running(UserData=data, InstanceInitiatedShutdownBehavior=behaviour)
    cloud.until(name, ending)
    assert cloud.describe(name)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert processes_with(name) == []
    if ending == "stopped":
        cloud.end(name)


def test_the_behaviour_can_be_changed_while_it_runs(cloud: Cloud) -> None:
    name = cloud.running(UserData=guarded(cloud, deadline=time.time() + 3))
    change = {"InstanceInitiatedShutdownBehavior": {"Value": "terminate"}}
    cloud.ec2.modify_instance_attribute(InstanceId=name, **change)
    told = cloud.ec2.describe_instance_attribute(
        InstanceId=name, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert told["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    cloud.until(name, "terminated")


def test_a_persistent_spot_instance_that_powers_off_is_as_stopped_by_its_user(cloud: Cloud) -> None:
    name = cloud.running(UserData=guarded(cloud, deadline=time.time() + 2), **SPOT)
    request_id = cloud.describe(name)["SpotInstanceRequestId"]
    cloud.until(name, "stopped")

    def one() -> dict[str, Any]:
        ids = [request_id]
        rows = cloud.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=ids)
        found: dict[str, Any] = rows["SpotInstanceRequests"][0]
        return found

    assert (one()["State"], one()["Status"]["Code"]) == ("disabled", "instance-stopped-by-user")
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    cloud.until(name, "terminated")


def test_a_one_time_spot_instance_that_powers_off_is_gone(cloud: Cloud) -> None:
    market = {"InstanceMarketOptions": {"MarketType": "spot"}}
    name = cloud.running(UserData=guarded(cloud, deadline=time.time() + 2), **market)
    cloud.until(name, "terminated")


def test_a_machine_that_nobody_contacts_ends_and_the_wait_can_be_shortened(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    state = tmp_path_factory.mktemp("contact") / "state"
    try:
        cloud = start(state, f"{DELAYS},first_contact=3")
        met, never = cloud.launch(UserData=guarded(cloud)), cloud.launch(UserData=guarded(cloud))
        cloud.until(met, "running")
        cloud.ssh(met, "mkdir -p cloudtrain")
        cloud.until(never, "stopped")
        assert cloud.state_of(met) == "running"
    finally:
        sandbox.stop(state)


def test_a_machine_knows_itself_and_its_tags_as_they_are_now(cloud: Cloud) -> None:
    options = {"InstanceMetadataTags": "enabled", "HttpTokens": "required"}
    name = cloud.running(MetadataOptions=options)
    assert ask(cloud, name, "instance-id") == ("200", name)
    assert ask(cloud, name, "placement/availability-zone") == ("200", "us-east-1a")
    assert ask(cloud, name, "public-ipv4") == ("200", cloud.address(name))
    assert ask(cloud, name, "tags/instance/deadline")[0] == "404"
    for value in ("1", "2"):
        cloud.ec2.create_tags(Resources=[name], Tags=[{"Key": "deadline", "Value": value}])
        assert ask(cloud, name, "tags/instance/deadline") == ("200", value)
    bare = 'curl -s -o /dev/null -w "%{http_code}" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/instance-id"'
    assert cloud.ssh(name, bare) == "401"
    assert cloud.ssh(name, bare.replace("curl -s", "curl -s -H 'Host: evil.example'")) == "404"
    assert cloud.ssh(name, "echo $AWS_EC2_METADATA_SERVICE_ENDPOINT").startswith("http://127.0.0.1:")
    other = cloud.running()
    assert ask(cloud, other, "instance-id") == ("200", other)
    assert ask(cloud, other, "tags/instance/deadline")[0] == "404"
    cloud.end(name, other)


def test_a_spot_machine_is_told_before_it_is_stopped(cloud: Cloud) -> None:
    name = cloud.running(**SPOT)
    request_id = cloud.describe(name)["SpotInstanceRequestId"]
    path = "spot/instance-action"
    assert ask(cloud, name, path)[0] == "404"
    recommend(cloud, name)
    until(lambda: ask(cloud, name, "events/recommendations/rebalance")[0] == "200", "no recommendation")
    assert ask(cloud, name, path)[0] == "404"
    reclaim(cloud, name)
    until(lambda: ask(cloud, name, path)[0] == "200", "no notice")
    notice = json.loads(ask(cloud, name, path)[1])
    left = time.mktime(time.strptime(notice["time"], "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())
    assert notice["action"] == "stop"
    assert 100 < left <= 121
    assert cloud.state_of(name) == "running"
    give_back(cloud)
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
    cloud.end(name)


def test_user_data_without_a_guard_or_with_nonsense_has_none() -> None:
    assert guard_of("") is None
    assert guard_of("#cloud-config\npackages: [x]\n") is None
    broken = {"path": "/usr/local/lib/cloudtrain/guard.py", "encoding": "gz+b64", "content": "!"}
    assert guard_of(f"#cloud-config\nwrite_files: {json.dumps([broken])}\n") is None
