"""Who is admitted: one public address, one rule a client, nobody else's rule touched."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cloudtrain.errors import CloudError, UsageError
from cloudtrain.models.run import RunRef
from cloudtrain.providers.aws.access import caller_address, checked_address, client_id
from cloudtrain.providers.base import AccessSpec
from cloudtrain.ssh import keys
from tests.support.endpoint import Endpoint, served

RUN = RunRef("helmets", "0123abcd", "0123456789ab")
KEY = keys.generate("test").public


@contextmanager
def answering(body: bytes, status: int = 200, location: str = "") -> Generator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def cloud() -> Generator[Endpoint]:
    with served() as endpoint:
        yield endpoint


def admitted(cloud: Endpoint, group: str) -> dict[str, str]:
    """Return each admitted network with its rule's description."""
    found = cloud.provider().clients.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    return {
        str(item.get("CidrIp")): str(item.get("Description", ""))
        for row in found.get("IpPermissions", [])
        for item in row.get("IpRanges", [])
    }


def prepared(cloud: Endpoint, address: str | None = "52.95.4.1", run: RunRef = RUN) -> str:
    return cloud.provider().prepare_access(AccessSpec(run, KEY, address, 22)).security_group


@pytest.mark.parametrize("body", [b"52.95.4.1", b"52.95.4.1\n", b"  52.95.4.1\r\n"])
def test_one_public_address_is_taken(body: bytes) -> None:
    with answering(body) as url:
        assert caller_address(url) == "52.95.4.1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"127.0.0.1",
        b"10.0.0.7",
        b"192.168.1.4",
        b"169.254.169.254",
        b"100.64.0.1",
        b"0.0.0.0",
        b"224.0.0.1",
        b"255.255.255.255",
        b"52.95.4.1/0",
        b"0.0.0.0/0",
        b"52.95.4.1\n52.95.4.2",
        b"52.95.4.1 52.95.4.2",
        b"52.95.4.1" + b" " * 80 + b"52.95.4.2",
        b"2600:1f18::1",
        b"052.095.004.001",
        b"<html><body>52.95.4.1</body></html>",
        b'{"ip": "52.95.4.1"}',
        "５２.95.4.1".encode(),
    ],
    ids=repr,
)
def test_anything_else_is_refused(body: bytes) -> None:
    with answering(body) as url, pytest.raises(CloudError) as caught:
        caller_address(url)
    assert "access" in caught.value.hint


def test_an_error_page_and_another_page_are_refused() -> None:
    with answering(b"52.95.4.1", status=500) as url, pytest.raises(CloudError, match="did not say"):
        caller_address(url)
    with (
        answering(b"52.95.4.1") as there,
        answering(b"", status=302, location=there) as url,
        pytest.raises(CloudError, match="did not say"),
    ):
        caller_address(url)


@pytest.mark.parametrize("url", ["http://example.org/", "file:///etc/hostname", "ftp://x/", "127.0.0.1"])
def test_only_https_is_asked(url: str) -> None:
    with pytest.raises(UsageError):
        caller_address(url)


def test_a_given_address_is_checked_as_well() -> None:
    assert checked_address("127.0.0.1", loopback=True) == "127.0.0.1"
    assert checked_address("10.0.0.1", inside=True) == "10.0.0.1"
    for wrong in ("0.0.0.0", "169.254.169.254", "255.255.255.255", "224.0.0.1"):
        with pytest.raises(CloudError):
            checked_address(wrong, inside=True)
    for wrong in ("127.0.0.1", "0.0.0.0", "10.0.0.1", "52.95.4.0/24"):
        with pytest.raises(CloudError):
            checked_address(wrong)


def test_a_client_has_one_id_and_keeps_it() -> None:
    assert client_id() == client_id()
    assert len(client_id()) == 8


def test_the_rule_names_its_client_and_follows_the_address(cloud: Endpoint) -> None:
    group = prepared(cloud, "52.95.4.1")
    mine = f"cloudtrain {RUN.owner} {client_id()}"
    assert admitted(cloud, group) == {"52.95.4.1/32": mine}
    assert cloud.provider().repair_ingress(RUN, "52.95.4.2")
    assert admitted(cloud, group) == {"52.95.4.2/32": mine}
    assert not cloud.provider().repair_ingress(RUN, "52.95.4.2")


def test_the_second_up_from_another_address_moves_the_rule(cloud: Endpoint) -> None:
    group = prepared(cloud, "52.95.4.1")
    assert prepared(cloud, "52.95.4.9") == group
    assert list(admitted(cloud, group)) == ["52.95.4.9/32"]


def test_only_ones_own_rule_is_withdrawn(
    cloud: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = prepared(cloud, "52.95.4.1")
    first = client_id()
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "another laptop"))
    assert client_id() != first
    cloud.provider().repair_ingress(RUN, "52.95.4.2")
    cloud.provider().repair_ingress(RUN, "52.95.4.3")
    assert admitted(cloud, group) == {
        "52.95.4.1/32": f"cloudtrain {RUN.owner} {first}",
        "52.95.4.3/32": f"cloudtrain {RUN.owner} {client_id()}",
    }


@pytest.mark.parametrize("address", ["0.0.0.0", "0.0.0.0/0", "10.1.2.3", "::/0", "52.95.4.0/24"])
def test_the_world_is_never_admitted(cloud: Endpoint, address: str) -> None:
    group = prepared(cloud, "52.95.4.1")
    with pytest.raises(CloudError):
        cloud.provider().repair_ingress(RUN, address)
    assert list(admitted(cloud, group)) == ["52.95.4.1/32"]


def test_a_new_address_is_admitted_before_the_old_one_is_withdrawn(cloud: Endpoint) -> None:
    prepared(cloud, "52.95.4.1")
    cloud.provider().repair_ingress(RUN, "52.95.4.2")
    order = [name for _, name, _ in cloud.calls if "SecurityGroupIngress" in name]
    assert order == [
        "AuthorizeSecurityGroupIngress",
        "AuthorizeSecurityGroupIngress",
        "RevokeSecurityGroupIngress",
    ]


def test_another_users_group_is_not_repaired(cloud: Endpoint) -> None:
    group = prepared(cloud, "52.95.4.1")
    stranger = RunRef(RUN.name, RUN.id, "ffffffffffff")
    assert not cloud.provider().repair_ingress(stranger, "52.95.4.2")
    assert list(admitted(cloud, group)) == ["52.95.4.1/32"]
