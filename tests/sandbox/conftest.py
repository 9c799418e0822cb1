"""A started sandbox a module, boto3 clients for it, and machines with known keys."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from cloudtrain.providers import sandbox
from cloudtrain.providers.sandbox import Endpoint
from cloudtrain.ssh import keys
from tests.sandbox.support import BOTO, DELAYS, UBUNTU, until


@dataclass
class Cloud:
    """A running sandbox and its clients."""

    state: Path
    endpoint: Endpoint
    user: keys.KeyPair = field(default_factory=lambda: keys.generate("user"))
    host: keys.KeyPair = field(default_factory=lambda: keys.generate("host"))

    def __post_init__(self) -> None:
        session: Any = boto3.Session()
        self.session = session
        self.folder = self.state.parent / f"{self.state.name}-client"
        self.folder.mkdir()
        keys.write_private(self.folder / "key", self.user.private)
        keys.pin(self.folder / "known_hosts", "machine", (self.host.public,))
        self.ec2 = self.client("ec2")

    def client(self, service: str, **changes: Any) -> Any:
        end = self.endpoint
        given: dict[str, Any] = {
            "endpoint_url": end.url,
            "region_name": end.region,
            "aws_access_key_id": end.access_key,
            "aws_secret_access_key": end.secret_key,
            "config": BOTO,
        }
        return self.session.client(service, **{**given, **changes})

    def user_data(self) -> str:
        body = "".join(f"    {line}\n" for line in self.host.private.splitlines())
        return (
            f"#cloud-config\nssh_keys:\n  ed25519_private: |\n{body}"
            f"  ed25519_public: {self.host.public}\nssh_authorized_keys:\n  - {self.user.public}\n"
        )

    def request(self, **changes: Any) -> dict[str, Any]:
        given = {"ImageId": UBUNTU, "InstanceType": "g4dn.xlarge", "MinCount": 1, "MaxCount": 1}
        return {**given, "UserData": self.user_data(), **changes}

    def launch(self, **changes: Any) -> str:
        return str(self.ec2.run_instances(**self.request(**changes))["Instances"][0]["InstanceId"])

    def running(self, **changes: Any) -> str:
        name = self.launch(**changes)
        self.until(name, "running")
        return name

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ec2.describe_instances(InstanceIds=[name])["Reservations"][0][
            "Instances"
        ][0]
        return found

    def state_of(self, name: str) -> str:
        try:
            return str(self.describe(name)["State"]["Name"])
        except self.ec2.exceptions.ClientError:
            return "unseen"

    def until(self, name: str, state: str) -> None:
        until(lambda: self.state_of(name) == state, f"{name} never became {state}")

    def address(self, name: str) -> str:
        return str(self.describe(name)["PublicIpAddress"])

    def ssh_options(self) -> list[str]:
        options = {
            "Port": self.endpoint.ssh_port,
            "User": self.endpoint.login_user,
            "IdentityFile": self.folder / "key",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": "machine",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        return ["-F", "none", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]

    def ssh(self, name: str, command: str, *flags: str, code: int | None = 0, stdin: str = "") -> str:
        done = subprocess.run(
            ["ssh", *self.ssh_options(), *flags, self.address(name), command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert code is None or done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def booted(self, name: str) -> None:
        """Wait until cloud-init has ended; sshd starts anew when it sets host keys."""
        ask = "cloud-init status --wait"
        until(lambda: "status: " in self.ssh(name, ask, code=None), f"{name} did not boot", timeout=90)

    def end(self, *names: str) -> None:
        self.ec2.terminate_instances(InstanceIds=list(names))
        for name in names:
            self.until(name, "terminated")


def start(state: Path, delays: str = DELAYS) -> Cloud:
    before = os.environ.get("CLOUDTRAIN_SANDBOX_DELAYS")
    os.environ["CLOUDTRAIN_SANDBOX_DELAYS"] = delays
    try:
        return Cloud(state, sandbox.ensure(state))
    finally:
        if before is None:
            del os.environ["CLOUDTRAIN_SANDBOX_DELAYS"]
        else:
            os.environ["CLOUDTRAIN_SANDBOX_DELAYS"] = before


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    state = tmp_path_factory.mktemp("cloud") / "state"
    try:
        yield start(state)
    finally:
        sandbox.stop(state)


@pytest.fixture
def machine(cloud: Cloud) -> Iterator[str]:
    """A running machine, ended after the test."""
    name = cloud.running()
    yield name
    if cloud.state_of(name) != "terminated":
        cloud.end(name)
