"""The user data: what is in it, that it fits, and that it is the same bytes each time."""

from __future__ import annotations

import ast
import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from cloudtrain.guard import guard
from cloudtrain.models.config import Lease
from cloudtrain.provision.userdata import LIMIT, START, user_data
from cloudtrain.ssh.keys import generate

NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOST, USER = generate("host"), generate("user")


def parsed(**changes: Any) -> tuple[str, dict[str, Any]]:
    given: dict[str, Any] = {"host_key": HOST, "user_public": USER.public, "deadline": NOW} | changes
    text = user_data(**given)
    assert text.startswith("#cloud-config\n")
    return text, yaml.safe_load(text)


def files(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {file["path"]: file for file in config["write_files"]}


def test_the_guard_arrives_whole_but_for_docstrings() -> None:
    _, config = parsed()
    sent = files(config)["/usr/local/lib/cloudtrain/guard.py"]
    assert sent["encoding"] == "gz+b64"
    text = gzip.decompress(base64.b64decode(sent["content"])).decode()
    here = Path(str(guard.__file__)).read_text()
    assert ast.get_docstring(ast.parse(text)) == guard.__doc__.strip()  # pyright: ignore[reportOptionalMemberAccess]
    assert without_docstrings(text) == without_docstrings(here)
    ast.parse(text, feature_version=(3, 8))


def without_docstrings(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node)
            and len(node.body) > 1
        ):
            del node.body[0]
    return ast.dump(tree)


def test_the_lease_is_in_its_config() -> None:
    lease = Lease(idle_minutes=7, after_training="keep", notify="echo 'x' | mail me")
    _, config = parsed(deadline=NOW + timedelta(hours=1), lease=lease, rescue_hours=0.5)
    told = json.loads(files(config)["/etc/cloudtrain/guard.json"]["content"])
    assert told["deadline"] == int(NOW.timestamp()) + 3600
    assert (told["idle_s"], told["after_training"], told["first_contact_s"]) == (420, "keep", 1200)
    assert told["rescue_most_s"] == 1800
    assert told["notify"] == "echo 'x' | mail me"
    missing = {name for name in guard.Lease._fields if name not in told}
    assert missing == {"ends"}  # on somebody's host alone it is not a power-off


def test_a_lease_without_an_idle_limit_or_a_deadline() -> None:
    _, config = parsed(deadline=None, lease=Lease(idle_minutes=None))
    told = json.loads(files(config)["/etc/cloudtrain/guard.json"]["content"])
    assert (told["deadline"], told["idle_s"]) == (0, 0)


def test_it_fits_with_room() -> None:
    hook = 'curl -fsS -X POST https://example.org/hook -d "$CLOUDTRAIN_NOTICE" '
    text, _ = parsed(lease=Lease(notify=hook * 4))
    assert len(text.encode()) < LIMIT - 1024


def test_the_same_request_is_the_same_bytes() -> None:
    assert parsed()[0] == parsed()[0]


def test_the_unit_comes_last_and_is_what_the_start_waits_for() -> None:
    _, config = parsed()
    last = config["write_files"][-1]["path"]
    assert last in START
    unit = config["write_files"][-1]["content"]
    assert "Restart=always" in unit
    assert "KillMode=process" in unit
    assert "Before=ssh.service sshd.service" in unit
    for path in ("/usr/local/lib/cloudtrain/guard.py", "/etc/cloudtrain/guard.json"):
        assert path in unit
        assert path in files(config)
    assert config["bootcmd"][-1][-1] == START
