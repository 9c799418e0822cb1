"""Machines of kind nspawn: booted, reached, rebooted, powered off, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from cloudtrain.errors import UsageError
from cloudtrain.providers import sandbox
from cloudtrain.sandbox.nspawn import images
from cloudtrain.ssh import keys
from tests.sandbox.conftest import Cloud
from tests.sandbox.support import until
from tests.support.nspawn import left_of, require_nspawn, started

TOKEN = (
    "import urllib.request as u; ask = lambda m, p, **h: u.urlopen(u.Request('http://169.254.169.254' + p, "
    "method=m, headers={k.replace('_', '-'): v for k, v in h.items()}), timeout=5).read().decode()\n"
    "t = ask('PUT', '/latest/api/token', X_aws_ec2_metadata_token_ttl_seconds='60')\n"
    "print(ask('GET', '/latest/meta-data/{path}', X_aws_ec2_metadata_token=t))"
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    with started(tmp_path_factory.mktemp("nspawn") / "state") as made:
        yield made


@pytest.fixture(scope="module")
def shared(cloud: Cloud) -> str:
    """A machine for the tests that only look."""
    return cloud.running()


@pytest.fixture
def machine(cloud: Cloud) -> Iterator[str]:
    name = cloud.running(InstanceInitiatedShutdownBehavior="stop")
    yield name
    if cloud.state_of(name) != "terminated":
        cloud.end(name)


def boot_id(cloud: Cloud, name: str) -> str:
    return cloud.ssh(name, "cat /proc/sys/kernel/random/boot_id").strip()


def rebooted(cloud: Cloud, name: str, command: str) -> None:
    before = boot_id(cloud, name)
    cloud.ssh(name, command, code=None)
    until(
        lambda: cloud.ssh(name, "cat /proc/sys/kernel/random/boot_id", code=None).strip() not in ("", before),
        "it did not come back",
        timeout=60,
    )


def test_it_boots_in_seconds_and_the_first_connection_is_verified(cloud: Cloud) -> None:
    began = time.monotonic()
    name = cloud.running()
    # Strict checking against the key of the user data: no earlier key may have answered.
    assert cloud.ssh(name, "whoami; sudo -n id -un; ps -o comm= 1").split() == ["ubuntu", "root", "systemd"]
    assert time.monotonic() - began < 20  # 4 s on an idle machine
    assert float(cloud.ssh(name, "cut -d' ' -f1 /proc/uptime")) < 30  # its own, not the host's
    cloud.ssh(name, "cloud-init status --wait")
    assert cloud.ssh(name, "systemctl --failed --no-legend", code=None) == ""
    assert "Accepted publickey" in cloud.ssh(name, "sudo journalctl -u ssh --no-pager")
    cloud.end(name)


def test_the_image_has_no_identity(cloud: Cloud, shared: str) -> None:
    base = images.folder()
    assert list((base / "etc/ssh").glob("ssh_host_*")) == []
    assert (base / "etc/machine-id").read_text() == ""
    assert not (base / "var/lib/dbus/machine-id").is_file()
    other = cloud.running()
    ids = {cloud.ssh(name, "cat /etc/machine-id").strip() for name in (shared, other)}
    assert len(ids) == 2
    cloud.end(other)


def test_cloud_init_is_fed_the_whole_user_data(cloud: Cloud) -> None:
    extra = (
        "write_files:\n  - {path: /etc/told, content: by user data}\n"
        "runcmd:\n  - [sh, -c, 'cat /etc/told > /root/ran; hostname >> /root/ran']\n"
    )
    name = cloud.running(UserData=cloud.user_data() + extra)
    cloud.ssh(name, "cloud-init status --wait")
    assert cloud.ssh(name, "sudo cat /root/ran") == f"by user data{name}\n"
    console = cloud.ec2.get_console_output(InstanceId=name)["Output"]
    assert keys.fingerprint(cloud.host.public) in console
    assert "systemd 252" in console
    cloud.end(name)


def test_without_a_host_key_it_makes_one_and_prints_it(cloud: Cloud) -> None:
    cloud.ec2.import_key_pair(KeyName="login", PublicKeyMaterial=cloud.user.public.encode())
    name = cloud.running(UserData="", KeyName="login")
    until(
        lambda: "END SSH HOST KEY KEYS" in cloud.ec2.get_console_output(InstanceId=name).get("Output", ""),
        "the console has no keys",
    )
    text = cloud.ec2.get_console_output(InstanceId=name)["Output"]
    block = text.split("-----BEGIN SSH HOST KEY KEYS-----")[1].split("-----END")[0]
    made = [" ".join(line.split()[:2]) for line in block.splitlines() if line.startswith("ssh-ed25519")]
    keys.pin(cloud.folder / "made", "machine", tuple(made))
    options = [o.replace("/known_hosts", "/made") for o in cloud.ssh_options()]
    command = ["ssh", *options, cloud.address(name), "echo in"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "in\n", done.stderr
    cloud.end(name)
    cloud.ec2.delete_key_pair(KeyName="login")


def test_apt_installs_and_packages_come_by_the_hosts_ways(cloud: Cloud, shared: str) -> None:
    cloud.ssh(shared, "cloud-init status --wait")
    cloud.ssh(shared, "sudo apt-get -q update && sudo apt-get install -yq hello")
    assert cloud.ssh(shared, "hello") == "Hello, world!\n"
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERT")
    assert int(cloud.ssh(shared, "grep -c 'BEGIN CERT' /etc/ssl/certs/ca-certificates.crt")) >= bundle - 1
    assert cloud.ssh(shared, "echo $UV_CACHE_DIR") == "/var/cache/uv\n"
    assert cloud.ssh(shared, "touch $UV_CACHE_DIR/mine && getent hosts deb.debian.org") != ""
    code = "import urllib.request as u; print(u.urlopen('https://pypi.org/simple/six/', timeout=20).status)"
    assert cloud.ssh(shared, f'python3 -c "{code}"') == "200\n"


def test_the_metadata_service_knows_who_asks(cloud: Cloud, shared: str) -> None:
    other = cloud.running(InstanceType="g4dn.2xlarge")
    for name, type_ in ((shared, "g4dn.xlarge"), (other, "g4dn.2xlarge")):
        assert cloud.ssh(name, f'python3 -c "{TOKEN.replace("{path}", "instance-id")}"') == f"{name}\n"
        assert cloud.ssh(name, f'python3 -c "{TOKEN.replace("{path}", "instance-type")}"') == f"{type_}\n"
    missing = cloud.ssh(
        shared, f'python3 -c "{TOKEN.replace("{path}", "spot/instance-action")}" 2>&1', code=1
    )
    assert "HTTP Error 404" in missing
    cloud.end(other)


def test_a_reboot_keeps_instance_disk_and_address(cloud: Cloud, machine: str) -> None:
    address = cloud.address(machine)
    cloud.ssh(machine, "cloud-init status --wait; echo kept > kept")
    rebooted(cloud, machine, "sudo reboot")
    rebooted(cloud, machine, "sudo systemctl reboot --force")
    assert (cloud.state_of(machine), cloud.address(machine)) == ("running", address)
    assert cloud.ssh(machine, "cat kept") == "kept\n"
    until(
        lambda: cloud.ssh(machine, "systemctl is-system-running", code=None).strip() == "running",
        "it is not at rest",
    )


def test_a_poweroff_stops_and_a_start_boots_the_same_disk(cloud: Cloud, machine: str) -> None:
    cloud.ssh(machine, "cloud-init status --wait; echo kept > kept; sudo touch /etc/kept")
    before, address = boot_id(cloud, machine), cloud.address(machine)
    cloud.ssh(machine, "sudo poweroff", code=None)
    cloud.until(machine, "stopped")
    assert cloud.describe(machine)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert left_of(cloud.state, machine) == [str(cloud.state / "disks" / machine)]
    cloud.ec2.start_instances(InstanceIds=[machine])
    cloud.until(machine, "running")
    assert cloud.ssh(machine, "cat kept; ls /etc/kept") == "kept\n/etc/kept\n"
    assert cloud.address(machine) != address
    assert boot_id(cloud, machine) != before
    cloud.ec2.stop_instances(InstanceIds=[machine])
    cloud.until(machine, "stopped")
    assert left_of(cloud.state, machine) == [str(cloud.state / "disks" / machine)]


def test_a_poweroff_terminates_where_that_was_asked_for(cloud: Cloud) -> None:
    name = cloud.running(InstanceInitiatedShutdownBehavior="terminate")
    cloud.ssh(name, "sudo systemctl poweroff", code=None)
    cloud.until(name, "terminated")
    assert left_of(cloud.state, name) == []


def test_the_end_leaves_nothing(cloud: Cloud) -> None:
    name = cloud.running()
    cloud.ssh(name, "sudo setsid sh -c 'trap \"\" TERM HUP; sleep 600' > /dev/null 2>&1 < /dev/null &")
    cloud.ssh(name, "sudo mount -t tmpfs none /mnt; sudo ip link add dummy0 type dummy", code=None)
    assert left_of(cloud.state, name)
    cloud.end(name)
    assert left_of(cloud.state, name) == []
    assert [path.name for path in (cloud.state / "machines" / name).iterdir()] == ["console.log"]
    assert cloud.ec2.get_console_output(InstanceId=name)["Output"]


def test_several_run_side_by_side_and_services_stop_in_order(cloud: Cloud) -> None:
    began = time.monotonic()
    names = [cloud.launch() for _ in range(4)]
    for name in names:
        until(lambda name=name: cloud.state_of(name) == "running", f"{name} does not run", timeout=60)
    assert time.monotonic() - began < 60  # 9 s on two idle cores
    assert len({cloud.address(name) for name in names}) == 4
    for name in names:
        cloud.ssh(name, f"cloud-init status --wait; echo {name} > who")
    # Machines in one control group would wait 90 s here, for each other's processes.
    began = time.monotonic()
    cloud.ssh(names[0], "sudo systemctl restart dbus systemd-networkd ssh")
    assert time.monotonic() - began < 15
    first = cloud.address(names[0])
    assert (
        cloud.ssh(names[1], f"timeout 5 bash -c 'read -r line < /dev/tcp/{first}/22; echo ${{line:0:4}}'")
        == "SSH-\n"
    )
    cloud.end(names[0])
    assert [cloud.ssh(name, "cat who").strip() for name in names[1:]] == names[1:]
    cloud.end(*names[1:])


def test_a_pushed_key_opens_for_a_while(cloud: Cloud, shared: str) -> None:
    # Through the seam itself: the machine reads what lies in its folder of keys.
    other = keys.generate("other")
    folder = cloud.state / "machines" / shared / "keys"
    (folder / "ubuntu").write_text(other.public + "\n")
    keys.write_private(cloud.folder / "other", other.private)
    options = [o.replace(str(cloud.folder / "key"), str(cloud.folder / "other")) for o in cloud.ssh_options()]
    command = ["ssh", *options, cloud.address(shared), "true"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (folder / "ubuntu").unlink()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 255


@pytest.mark.parametrize("then", ["ensure", "stop"])
def test_what_a_crash_left_is_reaped(tmp_path: Path, then: str) -> None:
    state = tmp_path / "state"
    with started(state) as cloud:
        names = [cloud.launch() for _ in range(2)]
        for name in names:
            cloud.until(name, "running")
        os.kill(int(json.loads((state / "endpoint.json").read_text())["pid"]), signal.SIGKILL)
        until(lambda: sandbox.running(state) is None, "a killed server is taken for a living one")
        assert all(left_of(state, name) for name in names)
        if then == "ensure":
            sandbox.ensure(state)  # of the other kind: it reaps all the same
            assert sandbox.ensure(state).machines == "process"
        else:
            sandbox.stop(state)
        assert [left_of(state, name) for name in names] == [[], []]


def test_another_kind_is_refused_while_one_runs(cloud: Cloud) -> None:
    assert sandbox.ensure(cloud.state).machines == "nspawn"
    with pytest.raises(UsageError, match="has machines of kind `nspawn`, and `process` is asked for"):
        sandbox.ensure(cloud.state, machines="process")


def test_an_unknown_kind_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are machines of kind process and nspawn"):
        sandbox.ensure(tmp_path / "state", machines="vm")
    sandbox.stop(tmp_path / "state")


def test_without_root_it_is_said() -> None:
    require_nspawn()
    code = (
        "from cloudtrain.errors import UsageError\n"
        "from cloudtrain.sandbox.nspawn.kind import nspawn_kind\n"
        "try: nspawn_kind(None)\n"
        "except UsageError as error: print(error.message)"
    )
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
    done = subprocess.run(nobody, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "machines of kind `nspawn` need root\n"
