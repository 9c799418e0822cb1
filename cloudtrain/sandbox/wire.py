"""Requests and replies of the AWS query and JSON protocols, as plain values."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

_CODE = re.compile(rb'<Code>([^<]+)</Code>|"__type": *"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `params` is empty for the JSON protocol, whose text is `body`."""

    service: str
    region: str
    action: str
    params: Mapping[str, str]
    body: bytes
    environ: Mapping[str, Any]

    def numbered(self, prefix: str) -> list[str]:
        """Return `Prefix.1`, `Prefix.2`, … in order."""
        found: list[str] = []
        while (value := self.params.get(f"{prefix}.{len(found) + 1}")) is not None:
            found.append(value)
        return found

    def filters(self) -> dict[str, list[str]]:
        """Return EC2's `Filter.N` as name to values."""
        found: dict[str, list[str]] = {}
        number = 1
        while (name := self.params.get(f"Filter.{number}.Name")) is not None:
            found[name] = self.numbered(f"Filter.{number}.Value")
            number += 1
        return found

    def with_params(self, params: Mapping[str, str]) -> Request:
        """Return the same call with other parameters."""
        return replace(self, params=params, body=urlencode(params).encode())

    @property
    def json(self) -> dict[str, Any]:
        """The parameters of a JSON call."""
        parsed: dict[str, Any] = json.loads(self.body or b"{}")
        return parsed


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Dropped(Exception):
    """The call gets no answer: its connection is reset."""


Forward = Callable[[Request], Reply]
"""Hands a call on to what emulates the service."""


def parse(service: str, region: str, body: bytes, environ: Mapping[str, Any]) -> Request:
    """Return the call that a request with this signature scope makes."""
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target:
        return Request(service, region, target.rpartition(".")[2], {}, body, environ)
    query = str(environ.get("QUERY_STRING", "")) if environ.get("REQUEST_METHOD") == "GET" else ""
    params = dict(parse_qsl(query or body.decode("utf-8", "replace"), keep_blank_values=True))
    action = params.get("Action") or str(environ.get("PATH_INFO", "/"))
    return Request(service, region, action, params, body, environ)


def xml(name: str, inner: str) -> Reply:
    """Return a successful EC2 reply; `inner` is XML already."""
    text = f'<{name}Response xmlns="{EC2_NAMESPACE}"><requestId>{uuid.uuid4()}</requestId>{inner}</{name}Response>'
    return Reply(200, (("Content-Type", "text/xml;charset=UTF-8"),), text.encode())


def json_reply(value: object, status: int = 200) -> Reply:
    """Return a reply of the JSON protocol."""
    return Reply(status, (("Content-Type", "application/x-amz-json-1.1"),), json.dumps(value).encode())


def failure(request: Request | None, code: str, message: str, status: int = 400) -> Reply:
    """Return an error in the protocol of the call; `None` means that nobody knows it."""
    if request is not None and request.environ.get("HTTP_X_AMZ_TARGET"):
        return json_reply({"__type": code, "message": message}, status)
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    if request is not None and request.service != "ec2":
        text = f"<ErrorResponse>{error}<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
    else:
        text = f"<Response><Errors>{error}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"
    return Reply(status, (("Content-Type", "text/xml;charset=UTF-8"),), text.encode())


def dry_run(request: Request) -> Reply:
    """Return EC2's answer to a call that would have succeeded."""
    text = "Request would have succeeded, but DryRun flag is set."
    return failure(request, "DryRunOperation", text, 412)


def paged(request: Request, items: list[str], name: str) -> str:
    """Return the asked page of a set of XML items, with the token of the next one."""
    start = int(request.params.get("NextToken") or 0)
    size = int(request.params.get("MaxResults") or len(items) or 1)
    token = f"<nextToken>{start + size}</nextToken>" if start + size < len(items) else ""
    return f"<{name}>{''.join(items[start : start + size])}</{name}>{token}"


def error_code(reply: Reply) -> str:
    """Return the error code of an answer; empty for a success."""
    if reply.status < 400:
        return ""
    found = _CODE.search(reply.body)
    return (found[1] or found[2]).decode() if found else str(reply.status)


def tree(reply: Reply) -> ET.Element:
    """Return an XML reply of moto's to be changed; write paths as `{*}name`, versions differ."""
    return ET.fromstring(reply.body)  # noqa: S314 - moto's own text


def packed(reply: Reply, root: ET.Element) -> Reply:
    """Return the reply with a changed text."""
    return Reply(reply.status, reply.headers, ET.tostring(root, encoding="utf-8"))
