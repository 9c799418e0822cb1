"""`cloudtrain doctor`: what is wrong is found in seconds, each with its remedy."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.errors import CredentialsError
from cloudtrain.models.account import Check, Probe
from cloudtrain.models.config import Config
from cloudtrain.providers.aws import doctor as aws_doctor
from cloudtrain.providers.aws.client import Clients, Settings
from cloudtrain.workflows.doctor import doctor
from tests.support.endpoint import Refusal, served
from tests.support.road import Road, home


class Some:
    """A provider with just these probes."""

    def __init__(self, *probes: Probe) -> None:
        self._probes = probes

    def probes(self, _: Config) -> tuple[Probe, ...]:
        return self._probes


def ask(*probes: Probe, deadline_s: float = 5) -> dict[str, Check]:
    provider: Any = Some(*probes)
    return {check.name: check for check in doctor(lambda: provider, Config(), deadline_s=deadline_s).checks}


@pytest.fixture
def way(tmp_path: Path) -> Generator[Road]:
    with home(tmp_path / "home") as made:
        yield Road(tmp_path / "road", made)


def test_in_order_nothing_blocks(way: Road) -> None:
    found = way.json("doctor")["result"]
    states = {check["name"]: check["state"] for check in found["checks"]}
    for name in ("ssh", "credentials", "identity", "region", "clock", "rights", "network", "address"):
        assert states[name] == "ok", found
    assert states["quota g4dn.xlarge on-demand"] == "ok"


def test_a_quota_that_is_too_small_blocks_and_names_the_command(way: Road) -> None:
    way.state.mkdir(parents=True)
    (way.state / "account.json").write_text(json.dumps({"quotas": {"L-DB2E81BA": 0}}))
    done = way.call("doctor", code=3)
    assert "FAIL  quota g4dn.xlarge on-demand" in done.stdout
    assert "do: `cloudtrain quota --type g4dn.xlarge --market on-demand --request 4`" in done.stdout
    assert "1 of" in done.stdout.splitlines()[-1]


def test_without_credentials_each_check_says_its_own(way: Road) -> None:
    done = way.call("doctor", "--provider", "aws", "--region", "us-east-1", code=3)
    assert "FAIL  credentials" in done.stdout
    assert "aws configure" in done.stdout
    assert "ok    ssh" in done.stdout, "what needs no account is checked all the same"


def test_checks_run_side_by_side_and_a_stalled_one_holds_nobody() -> None:
    import threading

    never = threading.Event()

    def stall() -> Check:
        never.wait()
        raise AssertionError

    began = time.monotonic()
    found = ask(
        Probe("stalled", stall),
        Probe("also", stall),
        Probe("fine", lambda: Check("fine", "ok", "x")),
        deadline_s=1,
    )
    assert time.monotonic() - began < 3
    assert found["fine"].state == "ok"
    assert found["stalled"].state == "fail"
    assert "in time" in found["stalled"].seen
    never.set()


def test_a_check_that_breaks_hides_no_other() -> None:
    def broken() -> Check:
        raise ZeroDivisionError("oops")

    def refused() -> Check:
        raise CredentialsError("nobody", hint="sign in")

    found = ask(Probe("broken", broken), Probe("refused", refused))
    assert found["broken"].state == "warn"
    assert "ZeroDivisionError" in found["broken"].seen
    assert (found["refused"].state, found["refused"].remedy) == ("fail", "sign in")


@pytest.mark.parametrize(("ahead_s", "state"), [(0, "ok"), (120, "warn"), (400, "fail"), (-400, "fail")])
def test_the_clock_is_compared_with_the_date_of_an_answer(ahead_s: int, state: str) -> None:
    """The server's Date header is moved, which is the same as moving our clock."""
    import threading
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Late(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
            self.send_response_only(403)
            self.send_header(
                "Date", format_datetime(datetime.now(UTC) - timedelta(seconds=ahead_s), usegmt=True)
            )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Late) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings = Settings(
            region="us-east-1",
            endpoint=f"http://127.0.0.1:{server.server_port}",
            access_key="x",
            secret_key="x",
            ingress="52.95.4.1",
        )
        try:
            probes = {probe.name: probe for probe in aws_doctor.probes(Clients(settings), Config())}
            check = probes["clock"].ask()
        finally:
            server.shutdown()
            thread.join()
    assert check.state == state, check
    assert bool(check.remedy) == (state != "ok")


def test_denied_rights_and_closed_regions_are_told_apart() -> None:
    with served() as cloud:
        config = Config()
        probes = {one.name: one for one in cloud.provider().probes(config)}
        cloud.refuse["CreateSecurityGroup"] = Refusal("UnauthorizedOperation", "no", 403)
        denied = probes["rights"].ask()
        assert (denied.state, "iam-policy" in denied.remedy) == ("fail", True)
        cloud.refuse["CreateSecurityGroup"] = Refusal("DryRunOperation", "would", 412)
        assert probes["rights"].ask().state == "ok"
        cloud.refuse["DescribeRegions"] = Refusal("OptInRequired", "no", 401)
        found = {check.name: check for check in doctor(cloud.provider, config).checks}
        assert found["region"].state == "fail"
        assert "enable this region" in found["region"].remedy


def test_an_endpoint_without_dry_runs_keeps_nothing() -> None:
    with served() as cloud:
        provider = cloud.provider()
        before = provider.clients.ec2.describe_security_groups()["SecurityGroups"]
        {one.name: one for one in provider.probes(Config())}["rights"].ask()
        assert provider.clients.ec2.describe_security_groups()["SecurityGroups"] == before
