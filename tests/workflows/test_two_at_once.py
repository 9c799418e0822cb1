"""Two commands, a forgotten machine, a lost folder: each ends in one machine or a clear word."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
import zipfile
from base64 import b64encode

import pytest

from cloudtrain.journal.folder import RunFolder
from tests.support.faults import arm, calls, disarm, kill_at
from tests.support.road import Road, until

pytestmark = pytest.mark.road


def folder_of(way: Road) -> RunFolder:
    runs = [RunFolder(path.parent) for path in (way.home / "data" / "runs").glob("road-*/run.json")]
    return next(run for run in runs if run.record().project == str(way.project) and not run.record().ended)


def asked(way: Road, *args: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command on a terminal of its own, which it will ask its question on."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudtrain", *args],
        cwd=way.project,
        env=way.environ(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, text: str) -> str:
    said = ""
    end = time.monotonic() + 60
    while text not in said and time.monotonic() < end:
        try:
            said += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            break
    return said


def test_down_while_up_waits_at_its_question_leaves_nothing(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    machine = way.alive()[0]
    way.running.provider().terminate((machine,), 60)
    process, terminal = asked(way, "up")
    assert "Go ahead" in read_until(terminal, "Go ahead")
    way.call("down")
    os.write(terminal, b"y\n")
    said = read_until(terminal, "ended by another command")
    assert process.wait(60) == 7, said
    os.close(terminal)
    assert way.left() == []


def test_a_machine_that_the_cloud_has_forgotten_is_replaced_at_once(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    folder = folder_of(way)
    # As an hour later: the journal names a machine of long ago that no describe shows any more.
    rows = folder.journal.path.read_text().replace(way.alive()[0], "i-0123456789abcdef0")
    old = [json.dumps({**json.loads(row), "at": "2026-01-01T00:00:00+00:00"}) for row in rows.splitlines()]
    way.running.provider().terminate((way.alive()[0],), 60)
    folder.journal.path.write_text("\n".join(old) + "\n")
    way.call("up", "-y", timeout=60)
    assert len(way.alive()) == 1


def test_a_torn_newest_checkpoint_is_not_given_up_unasked(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    way.call("fetch-weights")
    with zipfile.ZipFile(way.project / "whole.pt", "w") as archive:
        archive.writestr("archive/data.pkl", "x" * 5000)
    torn = (way.project / "whole.pt").read_bytes()[:3000]
    slug = folder_of(way).path.name
    way.call(
        "exec",
        "--",
        "bash",
        "-c",
        f"cd ~/cloudtrain/{slug}/project && base64 -d > out/best.pt <<< {b64encode(torn).decode()}",
    )
    refused = way.call("down", code=7)
    assert "--discard" in refused.stderr
    assert len(way.alive()) == 1
    assert "warning" in way.call("down", "--discard").stderr or way.left() == []


def test_a_run_answers_to_its_whole_name_and_a_lost_folder_is_not_nothing(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    folder = folder_of(way)
    assert way.json("status", "--name", folder.path.name)["result"]["run"] == folder.path.name
    lost = folder.path.with_name("lost")
    shutil.move(folder.path, lost)
    (lost / "run.json").rename(lost / "run.json.lost")
    refused = way.call("down", "--name", folder.path.name, code=2)
    assert "cloudtrain audit" in refused.stderr
    (lost / "run.json.lost").rename(lost / "run.json")
    shutil.move(lost, folder.path)


def test_a_damaged_folder_blocks_nobody_else(way: Road) -> None:
    damaged = way.home / "data" / "runs" / "other-00000000"
    damaged.mkdir(parents=True)
    (damaged / "run.json").write_text("{")
    try:
        way.call("up", "-y")
        way.wait_for_end()
        way.call("down")
        refused = way.call("down", code=2)
        assert str(damaged) in refused.stderr
        assert "audit" in refused.stderr
    finally:
        shutil.rmtree(damaged)


def test_only_what_the_cloud_says_is_said_to_run(way: Road) -> None:
    way.running  # noqa: B018 - the sandbox is up before a fault is armed
    arm(way, at=1, call="ImportKeyPair", when="before", error="UnauthorizedOperation")
    refused = way.call("up", "-y", code=3)
    assert "still runs" not in refused.stderr
    disarm(way)
    way.call("up", "-y")
    way.wait_for_end()
    way.running.provider().terminate((way.alive()[0],), 60)
    gone = way.call("train", code=4)
    assert "is gone (terminated)" in gone.stderr
    assert "still runs" not in gone.stderr


def test_run_ends_when_its_machine_is_ended_behind_its_back(way: Road) -> None:
    (way.project / "wait").touch()
    process = way.start("run", "-y")
    until(lambda: bool(way.home.joinpath("data", "runs").exists() and way.alive()), timeout=60)
    until(lambda: "session" in way.call("status", "--json", code=None).stdout, timeout=60)
    way.running.provider().terminate((way.alive()[0],), 60)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "is terminated" in said or "is shutting-down" in said


def test_run_does_not_take_an_old_session_for_an_edit(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    (way.project / "train.py").write_text("print('edited')\n")
    refused = way.call("run", "-y", code=7)
    assert "cloudtrain train" in refused.stderr
    assert len(way.alive()) == 1


def test_credentials_of_another_account_never_end_or_double_a_run(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    run = next((way.home / "data" / "runs").glob("*/run.json"))
    mine = [p for p in run.parent.parent.glob("*/run.json") if str(way.project) in p.read_text()]
    folder = RunFolder(max(mine, key=lambda path: path.stat().st_mtime).parent)
    own = folder.record().account
    assert own
    folder.update(account="999999999999", profile="work")
    for verb in (("down",), ("up", "-y"), ("stop",), ("start",)):
        refused = way.call(*verb, code=7)
        assert "999999999999" in refused.stderr
        assert "AWS_PROFILE=work" in refused.stderr
        assert folder.record().ended is None
    assert any("999999999999" in text for text in way.json("status")["result"]["missing"])
    assert len(way.alive()) == 1
    folder.update(account=own)
    way.call("down")
    assert way.left() == []


def test_a_lost_answer_forgets_neither_price_nor_lease(way: Road) -> None:
    kill_at(way, 1, "after", "up", "-y", call="RunInstances")
    assert any("its answer did not come" in text for text in way.json("status")["result"]["missing"])
    way.call("up", "-y")
    record = way.json("status")["result"]["record"]
    assert record["price_hour"] > 0.5
    assert record["deadline"]
    way.wait_for_end()
    assert way.json("down")["result"]["receipt"]["cost"] > 0


def launches(way: Road) -> int:
    return sum(row["call"] == "RunInstances" for row in calls(way))


def test_run_killed_while_it_ends_its_machine_trains_once_only(way: Road) -> None:
    (way.project / "code").write_text("3")
    way.running  # noqa: B018 - the sandbox is up before a fault is armed
    ended = kill_at(way, 1, "after", "run", "-y", call="TerminateInstances")
    assert ended.reached, ended.said
    before = launches(way)
    again = way.call("run", "-y", code=3)
    assert "session 001 has ended with 3 and is at home" in again.stderr
    assert launches(way) == before
    assert way.left() == []


def test_run_does_not_train_again_what_is_at_home_when_the_machine_ended_itself(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    way.call("fetch-weights")
    way.running.provider().terminate((way.alive()[0],), 60)
    before = launches(way)
    way.call("run", "-y")
    assert launches(way) == before
    assert way.left() == []
