"""The instance metadata service's door: who asks is told by the address the question came from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cloudtrain.sandbox.machines import World
from cloudtrain.sandbox.metadata import answer


class MetadataServer(ThreadingHTTPServer):
    """Serves all machines of one bridge, on the gateway's address."""

    daemon_threads = True

    def __init__(self, gateway: str, world: World, owner: Callable[[str], str | None]) -> None:
        super().__init__((gateway, 0), _Handler)
        self.world = world
        self.owner = owner
        threading.Thread(target=self.serve_forever, args=(0.2,), daemon=True, name="metadata").start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "EC2ws", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def _answer(self) -> None:
        server = self.server
        if not isinstance(server, MetadataServer):
            raise TypeError(server)
        world, name = server.world, server.owner(str(self.client_address[0]))
        instance = world.instance(name) if name else None
        if instance is None:
            status, text = 404, ""
        else:
            status, text = answer(self.command, self.path, dict(self.headers.items()), instance, world.tokens)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Say nothing: a guard asks every few seconds."""
