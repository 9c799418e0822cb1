"""The metadata service of a `process` machine: a port on the loopback for each.

Such machines share the host's network, so there is no 169.254.169.254 of their own; what
the asking address tells EC2, the port tells here. It hands out no credentials and
changes nothing. The Host header must be exactly ours, so that no web page asks by
another name.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cloudtrain.sandbox.machines import World
from cloudtrain.sandbox.metadata import answer


class MetadataServer:
    """Serves one machine from the moment it is made until it is closed."""

    def __init__(self, world: World, instance_id: str) -> None:
        self._world = world
        self._instance_id = instance_id
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        name = f"imds {instance_id}"
        threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True, name=name).start()

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """The base address, in the place of http://169.254.169.254."""
        return f"http://{self.host}"

    def close(self) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Return status and text for one request."""
        instance = self._world.instance(self._instance_id)
        given = {key.lower(): value for key, value in headers.items()}
        if instance is None or given.get("host") != self.host:
            return 404, ""
        return answer(method, path, headers, instance, self._world.tokens)


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
