"""Bake on a booted machine: the next `up` finds its steps satisfied, and nothing private in the image."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nspawn import left_of, require_nspawn
from tests.support.road import Road, home, until
from tests.support.thorough import also

CONFIG = """\
name: bakery
provider: sandbox
environment: {manager: uv, python: "3.11", torch: none, packages: [six], requirements: requirements.txt}
train: {kind: script, command: "python train.py", outputs: ["out/*.pt"]}
"""
TRAIN = """\
import os, zipfile
import six, typing_extensions
os.makedirs("out", exist_ok=True)
with zipfile.ZipFile("out/best.pt", "w") as z:
    z.writestr("archive/data.pkl", "x" * 1000)
    z.writestr("archive/version", "3")
"""
pytestmark = pytest.mark.timeout(1500)
"""Each installs what a bare machine lacks, on machines that others may load."""
PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


@pytest.fixture
def road(tmp_path: Path) -> Generator[Road]:
    require_nspawn()
    with home(tmp_path / "home") as made:
        found = Road(tmp_path / "road", made, {"CLOUDTRAIN_SANDBOX_MACHINES": "nspawn"})
        (found.project / "cloudtrain.yaml").write_text(CONFIG)
        (found.project / "train.py").write_text(TRAIN)
        (found.project / "requirements.txt").write_text("typing_extensions\n")
        yield found
    assert left_of(found.state) == []


def called(road: Road, *args: str, code: int = 0) -> dict[str, Any]:
    """Run a verb with `--json`, for as long as installing takes."""
    answer: dict[str, Any] = json.loads(road.call(*args, "--json", code=code, timeout=400).stdout)
    return answer["result"] if code == 0 else answer["error"]


def disk_of(road: Road, image: str) -> Path:
    return road.state / "images" / image / "upper"


def images(road: Road) -> list[dict[str, Any]]:
    return called(road, "images")["images"]


def test_the_next_up_finds_its_steps_satisfied(road: Road) -> None:
    baked = called(road, "bake", "-y")
    changed = {step["name"] for step in baked["steps"] if step["outcome"] == "changed"}
    # Whether cloud-init is still at work by then is its own affair.
    assert changed - {"cloud-init"} == {"base", "uv", "environment", "requirements", "packages"}
    assert road.left() == []
    image = baked["image"]["id"]
    assert [(one["image"]["id"], one["fits"]) for one in images(road)] == [(image, True)]
    _search(disk_of(road, image), road)

    warm = called(road, "up", "-y")
    stages = {stage["stage"]: stage["outcome"] for stage in warm["waterfall"]["stages"]}
    # Where cloud-init was still at work the others are looked at once more, after it.
    assert {name for name, outcome in stages.items() if outcome == "changed"} <= {"cloud-init"}
    assert called(road, "provision")["changed"] == 0
    road.wait_for_end()
    assert any(one["kind"] == "checkpoint" or one["complete"] for one in called(road, "down")["artifacts"])


def _search(disk: Path, road: Road) -> None:
    """Look through the whole image for what must not be in it."""
    (key,) = {path.read_text().split()[1] for path in (road.home / "data" / "runs").glob("*-bake-*/key.pub")}
    files = [path for path in disk.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    for path in files:
        name = path.relative_to(disk).as_posix()
        assert "ssh_host_" not in path.name, name
        assert path.name not in ("authorized_keys", ".bash_history", "user-data.txt", "random-seed"), name
        assert not name.startswith(("var/lib/apt/lists/deb", "var/lib/cloud/instances/")), name
        data = path.read_bytes()
        assert key.encode() not in data, name
        if ".cloudtrain" not in name and not name.startswith("usr/"):
            assert not PRIVATE.search(data), name
    assert (disk / "etc/machine-id").read_bytes() == b""
    assert not (disk / "etc/cloudtrain").exists()


def test_what_a_newer_one_replaced_is_pruned_with_its_snapshots(road: Road) -> None:
    (road.project / "requirements.txt").unlink()
    (road.project / "cloudtrain.yaml").write_text(
        CONFIG.replace("manager: uv", "manager: existing").replace(", requirements: requirements.txt", "")
        .replace("packages: [six], ", "").replace('python: "3.11"', "python: /usr/bin/python3")
        .replace(", packages: [six]", "")
    )  # fmt: skip
    first = called(road, "bake", "-y")["image"]
    second = called(road, "bake", "-y")["image"]
    assert [(one["image"]["id"], one["fits"], one["old"]) for one in images(road)] == [
        (second["id"], True, False),
        (first["id"], False, True),
    ]
    found = called(road, "audit")["items"]
    kinds = sorted(item["found"]["kind"] for item in found)
    assert kinds == ["image", "image", "snapshot", "snapshot"]
    assert called(road, "images", "--prune", code=2)["message"]  # nobody is there to say yes
    pruned = called(road, "images", "--prune", "-y")["pruned"]
    assert sorted(pruned) == sorted([first["id"], *first["snapshots"]])
    assert [one["image"]["id"] for one in images(road)] == [second["id"]]
    assert sorted(item["found"]["id"] for item in called(road, "audit")["items"]) == sorted(
        [second["id"], *second["snapshots"]]
    )
    assert not disk_of(road, first["id"]).exists()


@pytest.mark.parametrize("stage", [also("launch"), "base", also("clean"), "image", also("terminate")])
def test_interrupted_anywhere_the_same_command_ends_with_one_image(road: Road, stage: str) -> None:
    (road.project / "cloudtrain.yaml").write_text(
        CONFIG.replace(", packages: [six], requirements: requirements.txt", "")
        .replace("manager: uv", "manager: existing").replace('python: "3.11"', "python: /usr/bin/python3")
    )  # fmt: skip
    process = road.start("bake", "-y", "--json")
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line)
        if event.get("event") == "stage-started" and event.get("stage") == stage:
            break
    else:
        pytest.fail(f"there was no stage `{stage}`")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Whatever there is by now, an account's owner finds.
    until(lambda: bool(called(road, "audit")["items"]), timeout=20)
    made = called(road, "bake", "-y")
    assert [one["image"]["id"] for one in images(road) if one["fits"]] == [made["image"]["id"]]
    assert len(images(road)) == 1
    assert road.left() == []
