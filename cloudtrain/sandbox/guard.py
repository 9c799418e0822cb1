"""Who may ask: only holders of the sandbox's own key, and only under its own name.

A machine can be had for one HTTP request, so no other user of this computer and no web
page may make one. The Host header must be exactly ours (a page that points a name at
127.0.0.1 sends its own), and every request, moto's control pages included, must carry
a SigV4 signature made with the random secret of this sandbox.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

CLOCK_SKEW = timedelta(minutes=15)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,\s]+)/(?P<scope>(?P<date>\d{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request),\s*SignedHeaders=(?P<headers>[^,\s]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Guard:
    """The one key and the one host that are served."""

    host: str
    access_key: str
    secret_key: str = field(repr=False)

    def admit(self, environ: Mapping[str, Any], body: bytes) -> tuple[str, str] | None:
        """Return (service, region) of a request that may pass, else None."""
        if environ.get("HTTP_HOST") != self.host:
            return None
        match = _AUTHORIZATION.fullmatch(str(environ.get("HTTP_AUTHORIZATION", "")))
        if match is None or not hmac.compare_digest(match["key"].encode(), self.access_key.encode()):
            return None
        stamp = str(environ.get("HTTP_X_AMZ_DATE", ""))
        names = match["headers"].split(";")
        if "host" not in names or not _recent(stamp):
            return None
        canonical = _canonical(environ, names, body)
        to_sign = "\n".join(
            ("AWS4-HMAC-SHA256", stamp, match["scope"], hashlib.sha256(canonical.encode()).hexdigest())
        )
        expected = _sign(self.secret_key, match["scope"], to_sign)
        if not hmac.compare_digest(expected, match["signature"]):
            return None
        return match["service"], match["region"]


def _recent(stamp: str) -> bool:
    try:
        made = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(datetime.now(UTC) - made) < CLOCK_SKEW


def _canonical(environ: Mapping[str, Any], names: list[str], body: bytes) -> str:
    # SigV4's canonical request, as AWS's "Create a signed request" page describes it.
    path = quote(str(environ.get("PATH_INFO", "/")), safe="/-_.~") or "/"
    query = "&".join(sorted(filter(None, str(environ.get("QUERY_STRING", "")).split("&"))))
    headers = "".join(f"{name}:{_header(environ, name)}\n" for name in names)
    method = str(environ.get("REQUEST_METHOD", ""))
    return "\n".join((method, path, query, headers, ";".join(names), hashlib.sha256(body).hexdigest()))


def _header(environ: Mapping[str, Any], name: str) -> str:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
    return " ".join(str(value).split())


def _sign(secret: str, scope: str, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
