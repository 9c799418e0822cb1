"""The whole road on hosts of the user's own: real sshd, the installed command."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from cloudtrain.ssh import keys
from tests.support.hosts import HostRoad, listed
from tests.support.road import until
from tests.support.sshd import Sshd

pytestmark = pytest.mark.road


@pytest.fixture
def way(tmp_path: Path, sshd: Sshd) -> Generator[HostRoad]:
    made = HostRoad(tmp_path / "road", tmp_path / "home", host=listed(sshd))
    yield made
    made.call("down", "--discard", "--stop-training", code=None)


def ours(sshd: Sshd) -> list[str]:
    """What of ours lies on the host."""
    return sorted(path.name for path in sshd.home.glob("cloudtrain/*"))


def test_up_status_logs_fetch_train_down(way: HostRoad, sshd: Sshd) -> None:
    first = way.call("up", "-y")
    assert "take host" in first.stderr
    assert "127.0.0.1" in first.stderr
    way.wait_for_end()
    assert "your own" in way.call("status").stdout
    assert way.call("logs").stdout.splitlines()[-1] == "last line"
    fetched = way.json("fetch-weights")["result"]
    assert {"best", "last"} <= {artifact["kind"] for artifact in fetched["artifacts"]}
    way.call("train")
    way.wait_for_end()
    assert way.json("status")["result"]["training"]["session"]["number"] == 2
    (run,) = ours(sshd)
    marker = json.loads((sshd.home / "cloudtrain" / run / "run.json").read_text())
    assert marker["run"] == run
    way.call("down")
    assert not (sshd.home / "cloudtrain" / run / "run.json").exists()
    assert (sshd.home / "cloudtrain" / run / "project").is_dir()
    assert "nothing to end" in way.call("down").stdout


COUNTING = """\
import os, time, zipfile
os.makedirs("out", exist_ok=True)
while not os.path.exists("enough"):
    with zipfile.ZipFile("out/last.pt.new", "w") as made:
        made.writestr("archive/data.pkl", str(time.time()))
        made.writestr("archive/version", "3")
    os.rename("out/last.pt.new", "out/last.pt")
    print("saved", flush=True)
    time.sleep(0.3)
"""


def guard_of(sshd: Sshd) -> int:
    """The process of the guard beside the sessions, 0 when there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if f"{sshd.home}/cloudtrain".encode() in words and b"guard.py" in words:
                return int(process.name)
        except OSError:
            continue
    return 0


def of_sessions(sshd: Sshd) -> list[str]:
    """What still runs of any session there."""
    mark = f"CLOUDTRAIN_SESSION={sshd.home}/".encode()
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_a_lease_that_was_asked_for_ends_the_training_and_never_the_machine(
    way: HostRoad, sshd: Sshd
) -> None:
    (way.project / "train.py").write_text(COUNTING)
    config = way.project / "cloudtrain.yaml"
    config.write_text(config.read_text().replace("python3 train.py", "'python3 -u train.py | cat; true'"))
    up = way.call("up", "-y", "--max-hours", "0.002")
    assert "the training is ended then" in up.stderr
    assert guard_of(sshd)
    way.wait_for_end()
    found = way.json("status")["result"]
    assert found["training"]["session"]["exit_code"] == 143
    assert found["lease"]["ending"] == "deadline"
    until(lambda: not guard_of(sshd))  # it ends with what it guards
    assert of_sessions(sshd) == []
    assert "powering off" not in json.dumps(found["lease"])

    assert "has ended" in way.call("train", code=7).stderr
    way.call("extend", "--hours", "1", "-y")
    way.call("train")
    until(lambda: (way.json("status")["result"]["lease"]["left_s"] or 0) > 3000)
    again = way.json("status")["result"]
    assert (again["training"]["session"]["state"], again["lease"]["ending"]) == ("running", "")
    down = way.json("down", "--stop-training")["result"]
    assert all(one["complete"] for one in down["artifacts"])
    assert guard_of(sshd) == 0


def test_without_one_nothing_ends_it_and_extend_moves_one_that_is(way: HostRoad, sshd: Sshd) -> None:
    (way.project / "train.py").write_text(COUNTING)
    assert "unless `lease.hours` is given" in way.call("up", "-y").stderr
    assert guard_of(sshd)
    assert "no lease" in way.call("extend", "--hours", "1", "-y", code=7).stderr
    way.call("down", "--stop-training")
    assert guard_of(sshd) == 0

    way.call("up", "-y", "--max-hours", "0.02")
    way.call("extend", "--hours", "1", "-y")
    until(lambda: (way.json("status")["result"]["lease"]["left_s"] or 0) > 3000)
    (guard,) = sshd.home.glob("cloudtrain/*/guard/guard.json")
    assert json.loads(guard.read_text())["deadline"] > time.time() + 3000
    way.call("down", "--stop-training")


def test_up_again_changes_nothing(way: HostRoad, sshd: Sshd) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    before = sshd.handshakes()
    assert "nothing to change" in way.call("up", "-y").stderr
    assert sshd.handshakes() == before + 1


def test_down_with_remove_takes_everything_along(way: HostRoad, sshd: Sshd) -> None:
    way.call("run", "-y", "--keep-on-failure")
    way.call("up", "-y")
    way.wait_for_end()
    way.call("down", "--remove")
    # The first run was kept on the host, for nobody asked to remove it.
    assert len(ours(sshd)) == 1
    assert sshd.home.joinpath("cloudtrain").is_dir()


def test_another_host_key_ends_every_verb_before_authentication(way: HostRoad, sshd: Sshd) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    sshd.stop()
    sshd.host_key = keys.generate("stranger")
    sshd.start()
    before = sshd.handshakes()
    for verb in (["up", "-y"], ["train"], ["fetch-weights"], ["logs"], ["exec", "true"], ["status"]):
        assert "host key" in way.call(*verb, code=4).stderr, verb
    assert "host key" in way.call("down", code=7).stderr
    assert sshd.handshakes() == before
    assert "Failed" not in sshd.log.read_text()


def test_a_fingerprint_that_does_not_fit_is_refused_before_authentication(way: HostRoad, sshd: Sshd) -> None:
    way.host = listed(sshd, fingerprint=keys.fingerprint(keys.generate("other").public))
    way.write()
    assert "host key" in way.call("up", "-y", code=4).stderr
    assert sshd.handshakes() == 0
    way.host = listed(sshd)
    way.write()
    way.call("up", "-y")
    way.wait_for_end()


def test_an_unknown_host_key_is_shown_and_never_taken_by_minus_y(way: HostRoad, sshd: Sshd) -> None:
    way.host = listed(sshd, fingerprint=None)
    way.write()
    refused = way.call("up", "-y", code=7)
    assert keys.fingerprint(sshd.host_key.public) in refused.stderr
    assert "fingerprint:" in refused.stderr
    assert sshd.handshakes() == 0
    assert ours(sshd) == []


CUT = """
asked=$*
for run in {home}/cloudtrain/*; do
    if [ -s "$run/sessions/001/exit" ] && [ "${{asked#*R %s}}" != "$asked" ] && mkdir "$run/cut"; then
        from=$PPID
        until grep -q '^sshd' "/proc/$from/comm"; do from=$(cut -d ' ' -f 4 "/proc/$from/stat"); done
        kill -KILL "$from"
    fi
done 2>/dev/null
exec {find} "$@"
"""


def test_run_brings_the_end_home_over_a_line_that_breaks_then(way: HostRoad, sshd: Sshd) -> None:
    script = COUNTING.replace('while not os.path.exists("enough"):', "for _ in range(3):")
    (way.project / "train.py").write_text(script)
    sshd.bring({"find": CUT.format(home=sshd.home, find=shutil.which("find"))})
    ran = way.call("run", "-y")
    assert list(sshd.home.glob("cloudtrain/*/cut"))
    assert "trying again" in ran.stderr
