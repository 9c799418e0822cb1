"""Nobody but the holder of the key gets an answer."""

from __future__ import annotations

import http.client
import stat
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.sandbox.conftest import Cloud
from tests.sandbox.support import refused

BODY = "Action=DescribeVpcs&Version=2016-11-15"


def signed(
    cloud: Cloud, path: str = "/", *, key: str = "", secret: str = "", body: str = BODY
) -> dict[str, str]:
    end = cloud.endpoint
    request = AWSRequest("POST", end.url + path, data=body, headers={"Host": urlsplit(end.url).netloc})
    sign: Any = SigV4Auth(Credentials(key or end.access_key, secret or end.secret_key), "ec2", "us-east-1")
    sign.add_auth(request)
    return {str(name): str(value) for name, value in request.headers.items()}


def ask(
    cloud: Cloud, headers: dict[str, str], path: str = "/", body: str = BODY, method: str = "POST"
) -> int:
    connection = http.client.HTTPConnection(urlsplit(cloud.endpoint.url).netloc, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode())
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_right_key_and_host_are_answered(cloud: Cloud) -> None:
    assert ask(cloud, signed(cloud)) == 200


@pytest.mark.parametrize("path", ["/", "/moto-api/reset", "/moto-api/", "/latest/meta-data/instance-id"])
def test_no_key_no_answer(cloud: Cloud, path: str) -> None:
    host = urlsplit(cloud.endpoint.url).netloc
    for method in ("POST", "GET", "OPTIONS"):
        assert ask(cloud, {"Host": host}, path, method=method) == 403


@pytest.mark.parametrize("host", ["localhost", "evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_foreign_host_is_refused_even_with_the_key(cloud: Cloud, host: str) -> None:
    assert ask(cloud, {**signed(cloud), "Host": host}) == 403


def test_another_key_or_secret_is_refused(cloud: Cloud) -> None:
    assert ask(cloud, signed(cloud, key="AKIDEXAMPLE")) == 403
    assert ask(cloud, signed(cloud, secret="guess")) == 403
    refused("AuthFailure", cloud.client("ec2", aws_secret_access_key="guess").describe_vpcs)


def test_a_signature_holds_for_one_request_only(cloud: Cloud) -> None:
    headers = signed(cloud)
    assert ask(cloud, headers, body=BODY.replace("DescribeVpcs", "DescribeKeyPairs")) == 403
    assert ask(cloud, headers, "/moto-api/reset") == 403
    old = signed(cloud) | {"X-Amz-Date": "20200101T000000Z"}
    assert ask(cloud, old) == 403


def test_the_key_lies_where_only_its_owner_reads(cloud: Cloud) -> None:
    assert stat.S_IMODE(cloud.state.stat().st_mode) == 0o700
    assert stat.S_IMODE((cloud.state / "endpoint.json").stat().st_mode) == 0o600
    assert cloud.endpoint.secret_key not in repr(cloud.endpoint)
    assert len(cloud.endpoint.access_key) >= 20
