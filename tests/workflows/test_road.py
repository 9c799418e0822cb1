"""The whole road in the sandbox: real HTTP, real sshd, real screen, the installed command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from cloudtrain.journal.folder import RunFolder
from cloudtrain.ssh import keys
from tests.support.road import Road, until

pytestmark = pytest.mark.road


def run_folder(way: Road) -> Path:
    """The folder of the project's open run."""
    runs = [RunFolder(path.parent) for path in (way.home / "data" / "runs").glob("*/run.json")]
    mine = [run for run in runs if run.record().ended is None and run.record().project == str(way.project)]
    return mine[0].path


def sshd_log(way: Road) -> Path:
    """The log of the machine's sshd, where every connection can be counted."""
    return way.state / "machines" / str(RunFolder(run_folder(way)).record().machine) / "sshd.log"


def test_up_train_fetch_down(way: Road) -> None:
    first = way.call("up", "-y")
    assert "g4dn.xlarge" in first.stderr
    assert "cloudtrain down" in first.stdout + first.stderr
    way.wait_for_end()
    assert way.call("logs").stdout.splitlines()[-1] == "last line"
    fetched = way.json("fetch-weights")["result"]
    kinds = {artifact["kind"] for artifact in fetched["artifacts"]}
    assert {"best", "last"} <= kinds
    assert all(artifact["complete"] for artifact in fetched["artifacts"])
    down = way.call("down")
    assert "0 left" in down.stdout + down.stderr
    assert way.left() == []
    assert "nothing to end" in way.call("down").stdout
    best = [Path(a["path"]) for a in fetched["artifacts"] if a["kind"] == "best"]
    assert best[0].is_file()


def test_up_again_changes_nothing_and_says_what_differs(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    before = len(way.running.calls())
    again = way.call("up", "-y")
    assert "nothing to change" in again.stderr
    assert not [
        c for c in way.running.calls()[before:] if c.startswith(("Run", "Create", "Import", "Authorize"))
    ]
    (way.project / "train.py").write_text("print('changed')\n")
    differs = way.call("up", "-y")
    assert "code" in differs.stderr or "project" in differs.stderr
    assert "cloudtrain train" in differs.stderr
    way.call("train")
    way.wait_for_end()
    assert "changed" in way.call("logs").stdout
    way.call("down")
    assert way.left() == []


def test_run_does_it_all_and_returns_the_trainings_exit_code(way: Road) -> None:
    done = way.call("run", "-y")
    assert way.left() == []
    assert "best.pt" in done.stdout + done.stderr
    (way.project / "code").write_text("3")
    failed = way.call("run", "-y", code=3)
    assert "last line" in failed.stdout + failed.stderr
    assert way.left() == []


def test_keep_on_failure_keeps_the_machine(way: Road) -> None:
    (way.project / "code").write_text("3")
    way.call("run", "-y", "--keep-on-failure", code=3)
    assert len(way.alive()) == 1
    way.call("down")
    assert way.left() == []


def test_down_and_train_refuse_while_training_runs(way: Road) -> None:
    (way.project / "wait").touch()
    way.call("up", "-y")
    refused = way.call("down", code=7)
    assert "--stop-training" in refused.stderr
    assert "still runs" in refused.stderr
    assert "--replace" in way.call("train", code=7).stderr
    assert len(way.alive()) == 1
    way.call("train", "--replace")
    assert "a script is not told of it" in way.call("train", "--weights", "last", code=2).stderr
    way.call("train", "--stop")
    assert way.json("status")["result"]["training"]["session"]["state"] != "running"
    way.call("down", "--stop-training")
    assert way.left() == []


def test_a_wrong_host_key_ends_every_verb_before_authentication(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    folder = run_folder(way)
    good = (folder / "known_hosts").read_bytes()
    keys.pin(folder / "known_hosts", folder.name, (keys.generate("stranger").public,))
    log = sshd_log(way)
    before = log.read_text().count("Accepted publickey")
    for verb in (["up", "-y"], ["train"], ["fetch-weights"], ["logs"], ["exec", "true"], ["tunnel", "9999"]):
        refused = way.call(*verb, code=4)
        assert "host key" in refused.stderr
    assert way.call("down", code=7).stderr.count("host key")
    assert "host key" in way.call("ssh", code=4).stderr
    assert log.read_text().count("Accepted publickey") == before
    (folder / "known_hosts").write_bytes(good)
    way.call("down")
    assert way.left() == []


def test_one_handshake_a_command_when_nothing_has_to_move(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    log = sshd_log(way)
    before = log.read_text().count("Accepted publickey")
    for verb in (["up", "-y"], ["status"], ["logs"], ["fetch-weights"], ["exec", "true"]):
        way.call(*verb)
        now = log.read_text().count("Accepted publickey")
        assert now - before == 1, verb
        before = now
    way.call("down")


@pytest.mark.parametrize("nth", [1, 2, 3, 5, 7, 9, 11, 14])
def test_killed_at_any_event_of_up_the_next_up_ends_in_one_machine(way: Road, nth: int) -> None:
    process = way.start("up", "-y", "--json")
    assert process.stderr is not None
    for _ in range(nth):
        if not process.stderr.readline():
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    way.call("up", "-y")
    assert len(way.alive()) == 1
    way.wait_for_end()
    way.call("down")
    assert way.left() == []


def test_killed_and_never_run_again_down_removes_everything(way: Road) -> None:
    process = way.start("up", "-y", "--json")
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line).get("stage") == "boot":
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    way.call("down")
    assert way.left() == []


def test_a_killed_terminal_loses_nothing(way: Road) -> None:
    (way.project / "wait").touch()
    process = way.start("run", "-y")
    until(lambda: "first line" in way.call("logs", code=None).stdout, timeout=60)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert way.json("status")["result"]["training"]["session"]["state"] == "running"
    way.call("fetch-weights")
    way.call("exec", "--", "touch", "cloudtrain/" + run_folder(way).name + "/project/go")
    way.call("run", "-y")
    assert way.left() == []


def test_watch_fetches_until_the_end_and_to_copies_the_checkpoints(way: Road, tmp_path: Path) -> None:
    (way.project / "wait").touch()
    way.call("up", "-y")
    watching = way.start("fetch-weights", "--watch", "--to", str(tmp_path / "mine"), "--json")
    home_of = run_folder(way) / "artifacts" / "001"
    until(lambda: any(home_of.rglob("last.pt")), timeout=60)
    way.call("exec", "--", "touch", f"cloudtrain/{run_folder(way).name}/project/go")
    out, _ = watching.communicate(timeout=60)
    kinds = {artifact["kind"] for artifact in json.loads(out)["result"]["artifacts"]}
    assert {"best", "last"} <= kinds
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"best.pt", "last.pt"}
    way.call("down")


def test_every_verb_speaks_json_one_object_on_stdout_and_lines_on_stderr(way: Road) -> None:
    verbs = (
        ["up", "-y"],
        ["status"],
        ["train", "--replace"],
        ["train", "--stop"],
        ["exec", "true"],
        ["fetch-weights"],
        ["audit"],
        ["sandbox", "status"],
        ["down"],
        ["status"],
    )
    (way.project / "wait").touch()
    for verb in verbs:
        done = way.call(*verb, "--json")
        assert json.loads(done.stdout)["ok"] is True, verb
        for line in done.stderr.splitlines():
            assert "event" in json.loads(line), verb


def test_interactive_verbs_tell_their_command_and_two_tunnels_are_one_object(way: Road) -> None:
    (way.project / "wait").touch()
    way.call("up", "-y")
    for verb in ("ssh", "attach"):
        command = way.json(verb)["result"]["command"]
        assert command[0].endswith("ssh")
        assert "StrictHostKeyChecking=yes" in " ".join(command)
    said = subprocess.run([*way.json("ssh")["result"]["command"], "id -un"], capture_output=True, check=True)
    assert said.stdout.strip()
    tunnel = way.start("tunnel", "22", "9999", "--port", "0", "--no-browser", "--json")
    assert tunnel.stdout is not None
    opened = json.loads(tunnel.stdout.readline())["result"]["tunnels"]
    tunnel.send_signal(signal.SIGTERM)
    tunnel.communicate(timeout=30)
    assert [one["name"] for one in opened] == ["port 22", "port 9999"]
    assert len({one["local_port"] for one in opened}) == 2


def test_two_ups_at_once_rent_one_machine(way: Road) -> None:
    first, second = way.start("up", "-y"), way.start("up", "-y")
    ends = [process.communicate(timeout=120) for process in (first, second)]
    codes = sorted((first.returncode, second.returncode))
    assert codes in ([0, 0], [0, 7]), ends
    assert len(way.alive()) == 1
    way.call("up", "-y")
    assert len(way.alive()) == 1
    way.call("down", "--stop-training")
    assert way.left() == []


def waiting_run(way: Road) -> subprocess.Popen[str]:
    """Start `run` and return once it waits for a training that goes on."""
    (way.project / "wait").touch()
    waiting = way.start("run", "-y")
    until(lambda: "first line" in way.call("logs", code=None).stdout, timeout=60)
    return waiting


def test_down_elsewhere_ends_a_waiting_run_with_the_truth(way: Road) -> None:
    waiting = waiting_run(way)
    way.call("down", "--stop-training")
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode in (1, 3, 4, 143), said
    assert waiting.returncode != 4 or "is gone" in said  # it was just asking when the machine went
    assert "Traceback" not in said
    assert way.left() == []


def test_run_leaves_the_machine_to_whoever_stopped_the_training(way: Road) -> None:
    waiting = waiting_run(way)
    way.call("train", "--stop")
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 143, said
    assert "stopped by hand" in said
    assert len(way.alive()) == 1
    way.call("down")
    assert way.left() == []


def test_progress_is_told_of_a_stage_that_runs(way: Road) -> None:
    """Or no bar on a terminal moves."""
    (way.project / "table.bin").write_bytes(os.urandom(3 << 20))
    up = way.call("up", "-y", "--json")
    running: list[str] = []
    told: list[str] = []
    for line in up.stderr.splitlines():
        event = json.loads(line)
        if event["event"] == "stage-started":
            running.append(event["stage"])
        elif event["event"] == "stage-finished":
            running.remove(event["stage"])
        elif event["event"] == "progress":
            assert event["stage"] in running
            told.append(event["stage"])
    assert "push code" in told
    way.call("down", "--stop-training")


def test_down_waits_for_another_change_of_the_run(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    with RunFolder(run_folder(way)).changing():
        ending = way.start("down")
        assert ending.stderr is not None
        said = next(line for line in ending.stderr if "another cloudtrain is changing" in line)
        assert "wait" in said
        assert len(way.alive()) == 1
    _, rest = ending.communicate(timeout=60)
    assert ending.returncode == 0, rest
    assert way.left() == []


def test_a_machine_that_went_by_itself_is_replaced_and_nothing_at_home_overwritten(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    way.call("fetch-weights")
    best = run_folder(way) / "artifacts" / "001" / "outputs" / "out" / "best.pt"
    before = best.read_bytes()
    provider = way.running.provider()
    provider.terminate((way.alive()[0],), 60)
    assert "is gone (terminated)" in way.call("status").stdout
    assert way.call("logs", code=4).stderr.count("error:") == 1
    way.call("up", "-y")
    assert len(way.alive()) == 1
    assert way.json("status")["result"]["training"]["session"]["number"] == 2
    assert best.read_bytes() == before
    way.wait_for_end()
    provider.terminate((way.alive()[0],), 60)
    assert "gone already" in way.call("down").stderr
    assert way.left() == []
