"""What the instance metadata service answers: one function, whoever serves it.

Paths and status codes are those of AWS's pages "Use the Instance Metadata Service to
access instance metadata", "Access tags using instance metadata", "Spot Instance
interruption notices" and "EC2 instance rebalance recommendations". Documents are sent
as `text/plain`; an error has an empty body here, where AWS sends a page of HTML.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
LONGEST_TTL_S = 21600
ROOT = "/latest/meta-data"


@dataclass(frozen=True, slots=True)
class Notice:
    """An interruption that is to come: `action` is stop, terminate or hibernate, `at` its time (UTC)."""

    action: str
    at: datetime


class Instance(Protocol):
    """What the metadata service knows of the instance that asks."""

    @property
    def id(self) -> str:
        """The instance id."""
        ...

    @property
    def type(self) -> str:
        """The instance type."""
        ...

    @property
    def image(self) -> str:
        """The image id."""
        ...

    @property
    def zone(self) -> str:
        """The availability zone."""
        ...

    @property
    def lifecycle(self) -> str:
        """`spot` or `on-demand`."""
        ...

    @property
    def address(self) -> str | None:
        """The public IPv4 address, if it has one."""
        ...

    @property
    def tags(self) -> Mapping[str, str] | None:
        """Its tags as they are now; None unless `InstanceMetadataTags` is enabled."""
        ...

    @property
    def token_required(self) -> bool:
        """Whether `HttpTokens` is `required`."""
        ...

    @property
    def notice(self) -> Notice | None:
        """The interruption notice, once there is one."""
        ...

    @property
    def rebalance(self) -> datetime | None:
        """When a rebalance recommendation was given (UTC), if one was."""
        ...


@dataclass(slots=True)
class Tokens:
    """The session tokens that were given away, each good for one instance and a while."""

    clock: Callable[[], float] = time.monotonic
    _until: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float], repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def issue(self, instance_id: str, ttl_s: int) -> str:
        """Return a new token that is good for `ttl_s` seconds."""
        token = secrets.token_urlsafe(40)
        now = self.clock()
        with self._lock:
            self._until = {key: end for key, end in self._until.items() if end > now}
            self._until[instance_id, token] = now + ttl_s
        return token

    def holds(self, instance_id: str, token: str) -> bool:
        """Whether a token is good for this instance now."""
        with self._lock:
            return self._until.get((instance_id, token), 0.0) > self.clock()


def answer(
    method: str, path: str, headers: Mapping[str, str], instance: Instance, tokens: Tokens
) -> tuple[int, str]:
    """Return status and text for one request that this instance made."""
    given = {name.lower(): value for name, value in headers.items()}
    path = path.partition("?")[0]
    if path == TOKEN_PATH and method == "PUT":
        return _token(given, instance, tokens)
    if method not in ("GET", "HEAD"):
        return 405, ""
    token = given.get(TOKEN_HEADER.lower())
    if token is None and instance.token_required:
        return 401, ""
    if token is not None and not tokens.holds(instance.id, token):
        return 401, ""
    text = _document(path, instance)
    return (404, "") if text is None else (200, text)


def _token(given: Mapping[str, str], instance: Instance, tokens: Tokens) -> tuple[int, str]:
    if "x-forwarded-for" in given:
        return 403, ""  # AWS refuses what came through a proxy
    ttl = given.get(TTL_HEADER.lower(), "")
    if not ttl.isdigit() or not 1 <= int(ttl) <= LONGEST_TTL_S:
        return 400, ""
    return 200, tokens.issue(instance.id, int(ttl))


def _document(path: str, instance: Instance) -> str | None:
    head, _, rest = path.partition(ROOT)
    if head or (rest and not rest.startswith("/")):
        return None
    known = _known(instance)
    name = rest.strip("/")
    if name in known and not rest.endswith("/"):
        return known[name]
    return _listing(known, f"{name}/" if name else "")


def _known(instance: Instance) -> dict[str, str]:
    found: dict[str, str | None] = {
        "ami-id": instance.image,
        "instance-id": instance.id,
        "instance-life-cycle": instance.lifecycle,
        "instance-type": instance.type,
        "placement/availability-zone": instance.zone,
        "placement/region": instance.zone.rstrip("abcdef"),
        "public-ipv4": instance.address,
        "spot/instance-action": _action(instance.notice),
        "spot/termination-time": _ending(instance.notice),
        "events/recommendations/rebalance": _recommended(instance.rebalance),
        **{f"tags/instance/{key}": value for key, value in (instance.tags or {}).items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def _action(notice: Notice | None) -> str | None:
    return json.dumps({"action": notice.action, "time": _stamp(notice.at)}) if notice else None


def _ending(notice: Notice | None) -> str | None:
    return _stamp(notice.at) if notice and notice.action == "terminate" else None


def _recommended(at: datetime | None) -> str | None:
    return json.dumps({"noticeTime": _stamp(at)}) if at else None


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _listing(known: Mapping[str, str], prefix: str) -> str | None:
    names: set[str] = set()
    for name in known:
        if name.startswith(prefix):
            head, more, _ = name.removeprefix(prefix).partition("/")
            names.add(head + more)
    return "\n".join(sorted(names)) if names else None
