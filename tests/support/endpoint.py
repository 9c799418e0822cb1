"""Plain moto over HTTP, without the sandbox's layer, and with answers that a test chooses."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from cloudtrain.providers.aws.client import Settings
from cloudtrain.providers.aws.provider import AwsProvider

REGION = "us-east-1"
StartResponse = Callable[..., Any]


@dataclass(frozen=True)
class Refusal:
    """An error that a call is answered with instead of being done (or `after` it was done)."""

    code: str
    message: str = "no"
    status: int = 400
    after: bool = False
    times: int = 1_000_000
    body: bytes | None = None
    """What is answered instead of an error, for what is no answer of AWS's at all."""


@dataclass
class Endpoint:
    """A started server. `refuse` maps a call's name to its error, `*` meaning every call."""

    url: str = ""
    refuse: dict[str, Refusal] = field(default_factory=dict[str, Refusal])
    calls: list[tuple[str, str, dict[str, str]]] = field(
        default_factory=list[tuple[str, str, dict[str, str]]]
    )

    def __post_init__(self) -> None:
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._answered: dict[str, int] = {}

    def provider(self, *, key: str = "test", region: str = REGION) -> AwsProvider:
        """A provider that asks this server; another access key is another user."""
        return AwsProvider(
            Settings(region=region, endpoint=self.url, access_key=key, secret_key="x", ingress="52.95.4.1")
        )

    def image(self) -> str:
        """The id of an image that exists here."""
        found = self.provider().clients.ec2.describe_images(Owners=["099720109477"])["Images"]
        return str(found[0].get("ImageId"))

    def asked(self, call: str) -> list[dict[str, str]]:
        """The parameters of every call of this name so far."""
        return [params for _, name, params in self.calls if name == call]

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        service, call, params = _call(environ)
        with self._lock:
            self.calls.append((service, call, params))
            refusal = self.refuse.get(call) or (self.refuse.get("*") if call else None)
            count = self._answered[call] = self._answered.get(call, 0) + 1
            if refusal is None or count > refusal.times:
                return self._answer(environ, start_response)
            if refusal.after:
                self._answer(environ, lambda *_: None)
        body, kind = _error(environ, refusal) if refusal.body is None else (refusal.body, "text/html")
        head = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start_response(f"{refusal.status} Refused", head)
        return [body]

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        try:
            return list(self._app(environ, start_response))
        except Exception as error:  # noqa: BLE001 - what moto lacks is a 500, as its own server answers
            start_response("500 Internal Server Error", [("Content-Type", "text/html")])
            return [str(error).encode()]


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Say nothing."""


def _call(environ: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    scope = str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2].split("/")
    service = scope[3] if len(scope) > 3 else ""
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target:
        return service, target.rpartition(".")[2], {k: str(v) for k, v in json.loads(body or b"{}").items()}
    params = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
    return service, params.get("Action", ""), params


def _error(environ: dict[str, Any], refusal: Refusal) -> tuple[bytes, str]:
    if environ.get("HTTP_X_AMZ_TARGET"):
        text = json.dumps({"__type": refusal.code, "message": refusal.message})
        return text.encode(), "application/x-amz-json-1.1"
    text = (
        f"<Response><Errors><Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message>"
        "</Error></Errors><RequestID>x</RequestID></Response>"
    )
    return text.encode(), "text/xml"


@contextmanager
def served() -> Generator[Endpoint]:
    """Serve on a free loopback port; everything in it is forgotten at the end."""
    endpoint = Endpoint()
    server = make_server("127.0.0.1", 0, endpoint, threaded=True, request_handler=_Silent)
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        _forget()


def _forget() -> None:
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()
