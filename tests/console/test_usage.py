"""Wrong usage and a polite end: with `--json` the one object, as for every other error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def call(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: PLW1510
        [sys.executable, "-m", "cloudtrain", *args],
        cwd=folder,
        env={"CLOUDTRAIN_HOME": str(folder), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "args", [("status", "--nope"), ("nope",), ("up", "--max-cost", "much"), ("iam-policy", "fly")]
)
def test_wrong_usage_is_one_object_too(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = call(tmp_path, *args, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["error"]["exit_code"]) == (2, False, 2)
    assert answer["error"]["type"] == "UsageError"
    assert done.stderr == ""


def test_json_belongs_to_the_program_behind_two_dashes(tmp_path: Path) -> None:
    done = call(tmp_path, "exec", "--", "echo", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no open run" in done.stderr


def test_a_polite_end_is_an_end_like_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITING],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "error: interrupted\n"


_WAITING = """
import signal, sys, threading
from cloudtrain import __main__ as begin
from cloudtrain.cli import app as cli
from cloudtrain.cli.command import Speaking, execute

def wait() -> None:
    def body(console):
        print("ready", flush=True)
        signal.pause()
    execute(Speaking(), body)

cli.app.command("wait")(wait)
sys.argv = ["cloudtrain", "wait"]
begin.main()
"""
