"""Bad input: one message, the right exit code, no traceback, and nothing made anywhere."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cloudtrain.journal.folder import RunFolder
from tests.support.road import Road

YOLO = "name: bad\nprovider: {provider}\ndataset: {{path: data.yaml}}\n"
DATA = "train: images/train\nval: images/val\nnames: [one]\n"


@pytest.fixture
def way(tmp_path: Path, shared: Path) -> Road:
    return Road(tmp_path / "road", shared)


def made_anything(way: Road) -> bool:
    """Whether a run folder or a sandbox came into being for this project."""
    runs = way.home / "data" / "runs"
    folders = [RunFolder(path.parent) for path in runs.glob("*/run.json")]
    return any(folder.record().project == str(way.project) for folder in folders)


def refused(way: Road, *args: str, code: int, says: str, hint: str) -> None:
    done = way.call(*args, code=code)
    assert says in done.stderr, done.stderr
    assert hint in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1
    assert not made_anything(way)


@pytest.mark.parametrize(
    ("config", "files", "says", "hint"),
    [
        ("instance: {typ: x}\n", {}, "cloudtrain.yaml:1: unknown key `instance.typ`", ""),
        (YOLO.format(provider="sandbox"), {}, "data.yaml", "hint:"),
        (YOLO.format(provider="sandbox"), {"data.yaml": "train: ["}, "data.yaml:1", ""),
        (YOLO.format(provider="sandbox"), {"data.yaml": DATA}, "images/train", "hint:"),
        ("provider: sandbox\n", {}, "needs a dataset", "dataset: {path: data.yaml}"),
        (
            "provider: sandbox\ntrain: {kind: script, command: python gone.py}\n",
            {},
            "gone.py",
            "train.command",
        ),
        ("provider: sandbox\ntrain: {kind: yolov5}\n", {}, "train.py", "project"),
        ("provider: ssh\n", {}, "hosts", ""),
    ],
)
def test_a_bad_folder_or_file_costs_nothing(
    way: Road, config: str, files: dict[str, str], says: str, hint: str
) -> None:
    (way.project / "cloudtrain.yaml").write_text(config)
    (way.project / "train.py").unlink()
    for name, text in files.items():
        (way.project / name).write_text(text)
    refused(way, "up", "-y", code=2, says=says, hint=hint)


def test_no_file_at_all_names_init(way: Road) -> None:
    (way.project / "cloudtrain.yaml").unlink()
    refused(way, "up", "-y", code=2, says="there is no cloudtrain.yaml", hint="cloudtrain init")


def test_a_volume_too_small_is_refused_before_anything_exists(way: Road) -> None:
    text = (
        (way.project / "cloudtrain.yaml")
        .read_text()
        .replace("manager: existing, python: /usr/bin/python3", "manager: conda")
    )
    (way.project / "cloudtrain.yaml").write_text(text)
    refused(way, "up", "-y", "--volume-gb", "20", code=2, says="too small", hint="instance.volume_gb")


def test_without_a_yes_nothing_is_made(way: Road) -> None:
    refused(way, "up", code=2, says="needs a yes", hint="`-y`")


def test_a_type_that_does_not_exist(way: Road) -> None:
    refused(way, "up", "-y", "--type", "g4dnn.xlarge", code=2, says="g4dnn.xlarge", hint="g4dn.xlarge")


def test_an_image_that_does_not_exist(way: Road) -> None:
    way.env["CLOUDTRAIN_INSTANCE_IMAGE"] = "ubuntu-19.04"
    refused(way, "up", "-y", code=2, says="ubuntu-19.04", hint="ubuntu-24.04")


def test_aws_without_credentials(way: Road) -> None:
    refused(
        way, "up", "-y", "--provider", "aws", "--region", "us-east-1",
        code=3, says="no AWS credentials", hint="aws configure",
    )  # fmt: skip


def test_aws_without_a_region(way: Road) -> None:
    refused(way, "up", "-y", "--provider", "aws", code=3, says="no AWS region", hint="AWS_REGION")


def test_a_profile_that_is_not_there(way: Road) -> None:
    refused(
        way,
        "up",
        "-y",
        "--provider",
        "aws",
        "--profile",
        "nobody",
        code=3,
        says="nobody",
        hint="list-profiles",
    )


@contextmanager
def refusing_cloud(code: str) -> Generator[str]:
    """An endpoint that answers everything with one error."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = (
                f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
                f"<Message>said the cloud</Message></Error></ErrorResponse>"
            ).encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("ExpiredToken", "expired"),
        ("AccessDenied", "docs/aws-account.md"),
        ("InvalidClientTokenId", "aws configure"),
    ],
)
def test_a_cloud_that_refuses_the_caller(way: Road, code: str, hint: str) -> None:
    with refusing_cloud(code) as url:
        way.env.update(
            AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_REGION="us-east-1"
        )
        refused(way, "up", "-y", "--provider", "aws", code=3, says=code, hint=hint)


def test_verbs_without_a_run_name_the_next_step(way: Road) -> None:
    for verb in (
        ["train"],
        ["logs"],
        ["fetch-weights"],
        ["ssh"],
        ["exec", "true"],
        ["tunnel", "8080"],
        ["attach"],
    ):
        refused(way, *verb, code=2, says="no open run", hint="cloudtrain up")
    assert "audit" in way.call("status").stdout
    assert "nothing to end" in way.call("down").stdout


def test_an_error_in_json_is_one_object_on_stdout(way: Road) -> None:
    (way.project / "cloudtrain.yaml").write_text("a: 1\nb: 2\n")
    answer = json.loads(way.call("up", "-y", "--json", code=2).stdout)
    assert answer["ok"] is False
    assert answer["error"]["exit_code"] == 2
    assert [problem["line"] for problem in answer["error"]["problems"]] == [1, 2]


def test_a_bad_key_file_and_a_busy_port_touch_no_machine(way: Road) -> None:
    way.call("up", "-y")
    runs = [RunFolder(path.parent) for path in (way.home / "data" / "runs").glob("*/run.json")]
    folder = next(run for run in runs if run.record().project == str(way.project))
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        said = way.call("tunnel", "8080", "--port", str(port), "--no-browser", code=2).stderr
        assert f"port {port}" in said
        assert "--port 0" in said
    folder.key.chmod(0o644)
    assert "chmod 600" in way.call("logs", code=2).stderr
    folder.key.chmod(0o600)
    good = folder.key.read_text()
    folder.key.write_text("garbage")
    assert "not a private key" in way.call("logs", code=2).stderr
    folder.key.write_text(good)
    way.call("down", "--stop-training", "--discard")
