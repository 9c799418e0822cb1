"""One boto3 session for the process, and its clients.

A second client of a session costs 10 ms, one of a new session 200 ms. Three
manners of asking: `ec2` retries throttling with jitter, `launcher` retries
nothing (boto3's own retries hide capacity errors and burn the launch quota),
`advice` gives up after a few seconds, because advice never blocks.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config as BotoConfig

from cloudtrain import __version__
from cloudtrain.errors import CredentialsError
from cloudtrain.providers.aws.errors import translating

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

PRICE_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}
"""The Price List API answers in few regions only; any other name does not serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach EC2. Everything None means: as boto3 finds it."""

    region: str | None = None
    profile: str | None = None
    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    ssh_port: int = 22
    ssh_user: str | None = None
    name: Literal["aws", "sandbox"] = "aws"
    ingress: str | None = None


class Clients:
    """Lazily made clients; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}

    def at(self, region: str) -> Clients:
        """Return the clients of another region, of the same session."""
        other = Clients(replace(self.settings, region=region))
        other.__dict__["session"] = self.session  # a session of its own would cost 200 ms
        other._lock = self._lock  # making a client is not safe to do twice at once in a session
        return other

    @cached_property
    def session(self) -> Any:  # noqa: ANN401 - its stub has a thousand overloads
        """The one session. Raises `CredentialsError` for a profile that is not there."""
        with translating("reading the AWS configuration"):
            return boto3.Session(
                # boto3 itself reads AWS_DEFAULT_REGION only; the AWS CLI and all other SDKs AWS_REGION
                region_name=self.settings.region or os.environ.get("AWS_REGION"),
                profile_name=self.settings.profile,
                aws_access_key_id=self.settings.access_key,
                aws_secret_access_key=self.settings.secret_key,
            )

    @property
    def region(self) -> str:
        """The region in use. Raises `CredentialsError` when none is set anywhere."""
        region: str | None = self.settings.region or self.session.region_name
        if not region:
            raise CredentialsError(
                "no AWS region is set",
                hint="write `region: us-east-1` into cloudtrain.yaml, or set AWS_REGION",
            )
        return region

    @property
    def partition(self) -> str:
        """`aws` or `aws-cn`, by the region."""
        return "aws-cn" if self.region.startswith("cn-") else "aws"

    @property
    def ec2(self) -> EC2Client:
        """EC2, patient: throttling and server errors are tried again with jitter."""
        return self._client("ec2", "patient")

    @property
    def launcher(self) -> EC2Client:
        """EC2 for the launch call alone: one request, one answer."""
        return self._client("ec2", "once")

    @property
    def advice(self) -> EC2Client:
        """EC2 for questions whose answer is welcome but not needed."""
        return self._client("ec2", "advice")

    @property
    def sweeper(self) -> EC2Client:
        """EC2 for looking everywhere: patient with throttling, but not with silence."""
        return self._client("ec2", "sweep")

    @property
    def ssm(self) -> SSMClient:
        """SSM, for public image parameters."""
        return self._client("ssm", "advice")

    @property
    def sts(self) -> STSClient:
        """STS, for the caller's identity."""
        return self._client("sts", "patient")

    @property
    def connect(self) -> Any:  # noqa: ANN401 - one call
        """EC2 Instance Connect."""
        return self._client("ec2-instance-connect", "patient")

    @property
    def impatient_sts(self) -> STSClient:
        """STS, where a quick no is better than a late yes."""
        return self._client("sts", "advice")

    @property
    def quotas(self) -> Any:  # noqa: ANN401 - four calls, read field by field
        """Service Quotas."""
        return self._client("service-quotas", "advice")

    @property
    def pricing(self) -> Any:  # noqa: ANN401 - its stub adds nothing to JSON in strings
        """The Price List API, in the region where it answers."""
        return self._client("pricing", "advice", region=PRICE_REGIONS[self.partition])

    def _client(self, service: str, manner: str, *, region: str | None = None) -> Any:  # noqa: ANN401
        with self._lock:
            if (service, manner) not in self._made:
                with translating("reading the AWS configuration"):
                    self._made[service, manner] = self.session.client(
                        service,
                        region_name=region or self.region,
                        endpoint_url=self.settings.endpoint,
                        config=_MANNERS[manner],
                    )
            return self._made[service, manner]


def _manner(*, attempts: int, connect_s: float, read_s: float) -> BotoConfig:
    return BotoConfig(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        connect_timeout=connect_s,
        read_timeout=read_s,
        max_pool_connections=16,
        user_agent_extra=f"cloudtrain/{__version__}",
    )


_MANNERS = {
    "patient": _manner(attempts=8, connect_s=10, read_s=30),
    "once": _manner(attempts=1, connect_s=10, read_s=60),
    "sweep": _manner(attempts=4, connect_s=5, read_s=15),
    "advice": _manner(attempts=2, connect_s=3, read_s=5),
}
