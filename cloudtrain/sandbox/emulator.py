"""moto, behind two doors: one for calls as they came, one for its records of EC2.

Loading moto takes seconds, so it happens beside the start of the server, and the first
call waits for the rest of it. One call at a time: moto makes regions on first use and
is not careful about who else does.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from cloudtrain.sandbox import images
from cloudtrain.sandbox.wire import Reply, Request, failure

ACCOUNT = "123456789012"
_SETTINGS = {
    "MOTO_ACCOUNT_ID": ACCOUNT,
    "MOTO_ENABLE_AMI_VALIDATION": "1",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "1",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
    "MOTO_DISABLE_GLOBAL_CORS": "1",
    "TEST_SERVER_MODE": "true",
}
_ANY_EC2_CALL = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host"


class Emulator:
    """The emulated services. Safe to use from several threads."""

    def __init__(self, images_file: Path) -> None:
        self.lock = threading.RLock()
        self._app: Any = None
        self._images_file = images_file
        self._loaded = threading.Event()
        threading.Thread(target=self._load, args=("us-east-1",), daemon=True, name="moto").start()

    def wait(self) -> None:
        """Wait until moto is loaded; importing it meanwhile would find it half there."""
        self._loaded.wait()

    def forward(self, request: Request) -> Reply:
        """Let moto answer. What it does not know becomes `InvalidAction`, never a crash."""
        self._loaded.wait()
        environ = dict(request.environ)
        environ["wsgi.input"] = io.BytesIO(request.body)
        environ["CONTENT_LENGTH"] = str(len(request.body))
        with self.lock:
            try:
                return _answer(self._app, environ)
            except NotImplementedError:
                known = "the sandbox does not emulate this call"
                return failure(request, "InvalidAction", f"{request.service} {request.action}: {known}")
            except Exception as error:  # noqa: BLE001 - another's code, on whatever a client sends
                traceback.print_exc(file=sys.stderr)
                return failure(request, "InternalError", f"{request.action}: {error}", 400)

    def ec2(self, region: str) -> Any:  # noqa: ANN401 - moto's own, which has no stable type
        """Return moto's records of EC2 in a region."""
        self._loaded.wait()
        from moto.ec2.models import ec2_backends

        with self.lock:
            return ec2_backends[ACCOUNT][region]

    def _load(self, region: str) -> None:
        gc.disable()  # a sixth of the time is collecting what stays for ever
        try:
            images.write_moto_images(self._images_file)
            os.environ.update(_SETTINGS, MOTO_AMIS_PATH=str(self._images_file))
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

            self._app = DomainDispatcherApplication(create_backend_app)
            from moto.ec2.models import ec2_backends

            self._app.get_application({"PATH_INFO": "/", "HTTP_AUTHORIZATION": _ANY_EC2_CALL})
            _ = ec2_backends[ACCOUNT][region]
        finally:
            gc.freeze()
            gc.enable()
            self._loaded.set()


def _answer(app: Any, environ: dict[str, Any]) -> Reply:  # noqa: ANN401
    from werkzeug.test import run_wsgi_app

    chunks, status, headers = run_wsgi_app(app, environ, buffered=True)
    kept = tuple((k, v) for k, v in headers.items() if k.lower() not in ("content-length", "connection"))
    reply = Reply(int(status.split()[0]), kept, b"".join(chunks))
    if reply.status >= 500 and b"<html" in reply.body[:200].lower():
        raise NotImplementedError
    return reply
