"""The metadata service of `process` machines: one small server, a secret path for each machine.

They share the host's network, so there is no 169.254.169.254 of their own; what the
address tells EC2, a path that only the machine knows tells here. The Host header must
be exactly ours, so that no web page asks by another name.
"""

from __future__ import annotations

import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cloudtrain.sandbox.machines import World
from cloudtrain.sandbox.metadata import answer


class MetadataServer:
    """Serves from the moment it is made, in threads that end with the process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._machines: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True, name="imds").start()

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def url(self, instance_id: str) -> str:
        """Return the base address of a machine's own metadata service; a new one each time."""
        secret = secrets.token_urlsafe(24)
        self._machines = {key: name for key, name in self._machines.items() if name != instance_id}
        self._machines[secret] = instance_id
        return f"http://{self.host}/{secret}"

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Return status and text for one request."""
        secret, _, rest = path.removeprefix("/").partition("/")
        name = self._machines.get(secret)
        instance = self._world.instance(name) if name else None
        given = {key.lower(): value for key, value in headers.items()}
        if instance is None or given.get("host") != self.host:
            return 404, ""
        return answer(method, f"/{rest}", headers, instance, self._world.tokens)


def _handler(server: MetadataServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def _any(self) -> None:
            status, text = server.answer(self.command, self.path, dict(self.headers.items()))
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = _any  # noqa: N815 - the base class asks for these names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401, ARG002
            return

    return Handler
