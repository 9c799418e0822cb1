"""A session's life on the machine: killed, rebooted, continued; what ended stays ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.models.config import Config, Train
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.training import start, status, stop
from tests.support.sshd import Sshd
from tests.training.conftest import SLUG, Bench, facts, gone
from tests.transfer.test_cuts import small_disk

COUNTING = """
import os, pathlib, sys, time, zipfile
run = pathlib.Path(os.environ["CLOUDTRAIN_RUN_DIR"])
done = 0
if os.environ.get("CLOUDTRAIN_RESUME"):
    with zipfile.ZipFile(os.environ["CLOUDTRAIN_RESUME"]) as container:
        done = int(container.read("epoch"))
print(f"from {done}", flush=True)
while done < 4:
    while not pathlib.Path(f"go-{done + 1}").exists():
        time.sleep(0.02)
    done += 1
    with zipfile.ZipFile(run / "last.pt", "w") as container:
        container.writestr("epoch", str(done))
    print(f"epoch {done}", flush=True)
"""


def counting(bench: Bench, *, go: int) -> Any:
    Path(bench.layout.project, "train.py").write_text("import os\nos.environ['X'] = ''\n" + COUNTING)
    for number in range(1, go + 1):
        Path(bench.layout.project, f"go-{number}").touch()
    return bench.start("exec python train.py", python=sys.executable)


def until(holds: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def secured_epochs(bench: Bench) -> list[int]:
    import zipfile

    found: list[int] = []
    for path in sorted(Path(bench.layout.secured(1)).glob("*.pt")):
        with zipfile.ZipFile(path) as container:
            found.append(int(container.read("epoch")))
    return found


def reboot(bench: Bench, session: Any) -> None:
    """What a loss of power does to a session: everything is gone at once."""
    for who in ("supervisor", "trainer"):
        os.kill(bench.pid(session, who), signal.SIGKILL)
    bench.remote.run("screen -wipe", check=False)


def resume(bench: Bench) -> None:
    """What the guard runs."""
    bench.remote.run(f"bash {bench.layout.session(1)}/resume.sh")


def test_a_killed_trainer_goes_on_from_the_newest_secured_checkpoint(bench: Bench) -> None:
    session = counting(bench, go=2)
    until(lambda: secured_epochs(bench)[-1:] == [2])
    os.kill(bench.pid(session, "trainer"), signal.SIGKILL)
    bench.until(session, "from 2")
    for number in (3, 4):
        Path(bench.layout.project, f"go-{number}").touch()
    ended = bench.end(session)
    assert (ended.state, ended.exit_code) == ("finished", 0)
    assert bench.log(session).splitlines() == [
        "from 0", "epoch 1", "epoch 2",
        "cloudtrain: killed by signal 9: starting again from the newest checkpoint",
        "from 2", "epoch 3", "epoch 4",
    ]  # fmt: skip
    assert secured_epochs(bench)[-1] == 4
    assert len(secured_epochs(bench)) <= 2


def test_after_a_loss_of_power_it_goes_on_under_the_same_name_in_the_same_folder(bench: Bench) -> None:
    session = counting(bench, go=1)
    until(lambda: secured_epochs(bench) == [1])
    reboot(bench, session)
    until(lambda: bench.now().state == "interrupted")
    began = bench.now().started
    resume(bench)
    bench.until(session, "from 1")
    again = bench.now()
    assert (again.state, again.screen, again.run_dir) == ("running", session.screen, session.run_dir)
    assert again.started == began
    assert session.screen in bench.remote.run("screen -ls", check=False).stdout
    for number in (2, 3, 4):
        Path(bench.layout.project, f"go-{number}").touch()
    assert bench.end(session).exit_code == 0


def test_a_machine_that_goes_down_interrupts_and_fails_nothing(bench: Bench) -> None:
    session = counting(bench, go=1)
    bench.until(session, "epoch 1")
    # systemd ends a machine with TERM for everybody.
    for who in ("supervisor", "trainer"):
        os.kill(bench.pid(session, who), signal.SIGTERM)
    until(lambda: gone(bench.pid(session, "supervisor")))
    assert bench.now().state == "interrupted"
    assert secured_epochs(bench) == [1], "the watcher takes a last look"


SAVING = """
trap 'echo saved; exit 0' TERM
[ -e again ] && { [ -e "$CLOUDTRAIN_NOTICE" ] && echo told again; echo gone on; exit 0; }
touch again; echo on
while [ ! -e "$CLOUDTRAIN_NOTICE" ]; do sleep 0.02; done
echo heard; exit 0
"""


def test_a_script_that_saves_and_exits_well_when_the_machine_goes_down_goes_on(bench: Bench) -> None:
    session = bench.start(SAVING)
    bench.until(session, "on")
    supervisor = bench.pid(session, "supervisor")
    for pid in (supervisor, bench.pid(session, "trainer")):
        os.kill(pid, signal.SIGTERM)
    until(lambda: gone(supervisor))
    assert bench.now().state == "interrupted"
    resume(bench)
    assert bench.end(bench.now()).exit_code == 0
    assert bench.log(session).splitlines()[-1] == "gone on"
    assert "saved" in bench.log(session)


def test_a_script_that_stops_at_a_notice_goes_on_and_is_not_told_the_same_again(bench: Bench) -> None:
    session = bench.start(SAVING)
    bench.until(session, "on")
    supervisor = bench.pid(session, "supervisor")
    Path(bench.layout.session(1), "notice").write_text('{"kind": "spot"}')
    until(lambda: gone(supervisor))
    assert bench.now().state == "interrupted"
    resume(bench)
    assert bench.end(bench.now()).exit_code == 0
    assert bench.log(session).splitlines()[-1] == "gone on"
    assert "told again" not in bench.log(session)


def test_a_yolo_trainer_that_says_0_has_finished_whatever_goes_down(bench: Bench) -> None:
    Path(bench.layout.project, "train.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('training', flush=True)\nsignal.pause()\n"
    )
    config = Config(train=Train(kind="yolov5", model="tiny.yaml"))
    session = start(
        bench.remote, config, bench.layout, slug=SLUG, python=sys.executable, number=1, dataset_yaml="d.yaml",
        model="tiny.yaml", facts=facts(),
    )  # fmt: skip
    bench.until(session, "training")
    for pid in (bench.pid(session, "supervisor"), bench.pid(session, "trainer")):
        os.kill(pid, signal.SIGTERM)
    assert bench.end(session).state == "finished"


def test_one_that_finishes_long_after_a_notice_has_finished(bench: Bench) -> None:
    session = bench.start("echo on; until [ -e go ]; do sleep 0.02; done")
    bench.until(session, "on")
    notice = Path(bench.layout.session(1), "notice")
    notice.write_text('{"kind": "rebalance"}')
    os.utime(notice, (1, 1))
    Path(bench.layout.project, "go").touch()
    assert bench.end(session).state == "finished"


def test_two_resumes_at_once_start_one(bench: Bench) -> None:
    session = counting(bench, go=0)
    bench.until(session, "from 0")
    reboot(bench, session)
    folder = bench.layout.session(1)
    bench.remote.run(
        f"for i in 1 2 3 4; do bash {folder}/session.sh </dev/null >/dev/null 2>&1 & done", check=False
    )
    resume(bench)
    until(lambda: bench.log(session).count("from 0") == 2)
    resume(bench)
    bench.remote.run("sleep 0.3")
    assert bench.log(session).count("from 0") == 2
    stop(bench.remote, bench.layout, session)


def test_what_finished_or_was_stopped_is_not_begun_again(bench: Bench) -> None:
    session = bench.start("echo once")
    bench.end(session)
    resume(bench)
    bench.remote.run(f"bash {bench.layout.session(1)}/session.sh", check=False)
    assert bench.log(session) == "once\n"
    second = bench.start("echo twice; sleep 100", number=2)
    bench.until(second, "twice")
    stop(bench.remote, bench.layout, second)
    bench.remote.run(f"bash {bench.layout.session(2)}/resume.sh")
    assert bench.log(second) == "twice\n"


def test_a_crash_loop_stops_and_says_why(bench: Bench) -> None:
    ended = bench.end(bench.start("echo hello; kill -SEGV $$"))
    assert (ended.state, ended.exit_code) == ("failed", 139)
    reason = Path(bench.layout.session(1), "reason").read_text()
    assert "three times" in reason
    assert "signal 11" in reason
    assert bench.log(ended).count("hello\n") == 3


def test_what_takes_the_machine_with_it_is_not_begun_for_ever(bench: Bench) -> None:
    session = counting(bench, go=1)
    until(lambda: secured_epochs(bench) == [1])
    for number in range(1, 4):
        reboot(bench, session)
        resume(bench)
        until(lambda number=number: bench.log(session).count("from 1") == number)
    reboot(bench, session)
    resume(bench)
    until(lambda: bench.now().state == "failed")
    assert "without a new checkpoint" in Path(bench.layout.session(1), "reason").read_text()
    assert "giving up" in bench.log(session)


def test_one_that_secures_something_goes_on_however_often(bench: Bench) -> None:
    session = counting(bench, go=1)
    for number in range(2, 5):
        until(lambda number=number: secured_epochs(bench)[-1:] == [number - 1])
        reboot(bench, session)
        resume(bench)
        until(lambda number=number: f"from {number - 1}" in bench.log(session))
        Path(bench.layout.project, f"go-{number}").touch()
    assert bench.end(session).exit_code == 0


def test_the_guards_own_protection_is_not_the_trainers(bench: Bench) -> None:
    session = bench.start("cat /proc/self/oom_score_adj; sleep 100")
    bench.until(session, "0")
    reboot(bench, session)
    bench.remote.run(f"echo 300 >/proc/$$/oom_score_adj; exec bash {bench.layout.session(1)}/resume.sh")
    until(lambda: bench.log(session).count("going on") == 1 and bench.log(session).endswith("0\n"))
    assert "300" not in bench.log(session)
    stop(bench.remote, bench.layout, session)


ORPHANS = """
[ -e once ] && { echo second; exit 0; }
touch once
setsid sh -c 'echo $$ >orphan; exec sleep 1000' &
until [ -s orphan ]; do sleep 0.02; done
kill -KILL $$
"""


def test_what_a_killed_launcher_left_does_not_train_beside_the_next(bench: Bench) -> None:
    session = bench.start(ORPHANS)
    ended = bench.end(session)
    orphan = Path(bench.layout.project, "orphan").read_text().strip()
    try:
        assert ended.exit_code == 0
        assert bench.log(session).splitlines()[-1] == "second"
        assert gone(orphan)
    finally:
        if not gone(orphan):
            os.kill(int(orphan), signal.SIGKILL)


def test_a_failure_is_not_repeated(bench: Bench) -> None:
    ended = bench.end(bench.start("echo hello; exit 1"))
    assert bench.log(ended) == "hello\n"
    assert ended.exit_code == 1


def test_progress_is_no_crash_loop(bench: Bench) -> None:
    Path(bench.layout.project, "train.py").write_text("import os\n" + COUNTING.replace(
        "while done < 4:", "while done < 5:").replace(
        'print(f"epoch {done}", flush=True)',
        'print(f"epoch {done}", flush=True)\n    secured = pathlib.Path(os.environ["CLOUDTRAIN_SESSION"], "secured")\n'
        '    while f\'"epoch-{done}"\' not in "" and not (secured.exists() and secured.stat().st_mtime_ns > (run / "last.pt").stat().st_mtime_ns): time.sleep(0.02)\n'
        "    done < 5 and os.kill(os.getpid(), 9)"))  # fmt: skip
    for number in range(1, 6):
        Path(bench.layout.project, f"go-{number}").touch()
    ended = bench.end(bench.start("exec python train.py", python=sys.executable))
    assert ended.exit_code == 0, bench.log(ended)
    assert bench.log(ended).count("killed by signal 9") == 4


def test_the_environment_is_the_one_it_was_begun_in(bench: Bench) -> None:
    session = bench.start('echo "$PATH"; sleep 0.01; until [ -e go ]; do sleep 0.02; done')
    bench.until(session, "/")
    reboot(bench, session)
    Path(bench.layout.project, "go").touch()
    bench.remote.run(f"env -i HOME=$HOME PATH=/usr/bin:/bin bash {bench.layout.session(1)}/resume.sh")
    bench.end(session)
    paths = [line for line in bench.log(session).splitlines() if line.startswith("/")]
    assert len(paths) == 2
    assert paths[0] == paths[1]
    assert Path(bench.layout.session(1), "environ").stat().st_mode & 0o077 == 0


def test_a_project_may_call_its_files_as_it_likes(bench: Bench) -> None:
    for name in ("csv", "zipfile", "json", "checkpoints", "cloudtrain_training"):
        Path(bench.layout.project, f"{name}.py").write_text("raise SystemExit(99)")
    ended = bench.end(bench.start("echo fine"))
    assert bench.log(ended) == "fine\n"


def test_the_plan_says_what_is_needed(bench: Bench) -> None:
    bench.end(bench.start("true"))
    plan = json.loads(Path(bench.layout.session(1), "plan.json").read_text())
    assert plan["kind"] == "script"
    assert plan["secured"] == bench.layout.secured(1)


FILLING = 'echo on; head -c 64M /dev/zero >"$CLOUDTRAIN_RUN_DIR/last.pt"; exit 1'


@pytest.mark.parametrize("end", ["exit 1", "kill -SEGV $$"])
def test_a_full_disk_takes_no_word_of_the_end(sshd: Sshd, remote: Remote, end: str) -> None:
    with small_disk(sshd.home / "small", "4m") as disk:
        bench = Bench(sshd, remote, Layout(str(disk / "run")))
        Path(bench.layout.project).mkdir(parents=True)
        session = bench.start(FILLING.replace("exit 1", end))
        ended = bench.end(session)
        found = status(remote, bench.layout, bench.config("true"))
        assert ended.state == "failed"
        assert found is not None
        assert found.trouble is not None
        assert (found.trouble.kind, "instance.volume_gb" in found.trouble.hint) == ("disk", True)
        assert ("three times" in found.trouble.text) == ("SEGV" in end)
        assert not Path(bench.layout.session(1), "ballast").exists()


def guarded(bench: Bench, command: str, **lease: Any) -> Any:
    """A session with a guard beside it, as on somebody's own host."""
    from datetime import UTC, datetime, timedelta

    from cloudtrain.guard import host_config
    from cloudtrain.models.config import Lease

    config = host_config(
        bench.layout, deadline=datetime.now(UTC) + timedelta(seconds=lease.pop("seconds")), lease=Lease()
    )
    return start(
        bench.remote, bench.config(command), bench.layout, slug=SLUG, python=sys.executable, number=1,
        dataset_yaml=None, model="", facts=facts(), guard={**config, "poll_s": 0.1, **lease},
    )  # fmt: skip


def end_guard(bench: Bench) -> None:
    home = Path(bench.layout.root, "guard")
    pid = int((home / "process").read_text().split()[1])
    (home / "guard.json").unlink()
    until(lambda: gone(pid))


def test_a_guard_beside_the_session_ends_it_at_the_deadline(bench: Bench) -> None:
    session = guarded(bench, "echo on; sleep 600", seconds=3, grace_s=0.5)
    ended = bench.end(session)
    assert ended.exit_code == 143
    found = status(bench.remote, bench.layout, bench.config("true"))
    assert found is not None
    assert found.guard is not None
    assert (found.guard.ending, found.guard.notices[-1].kind) == ("deadline", "deadline")
    assert "power off" in found.guard.cannot[0]
    end_guard(bench)


def test_a_guard_beside_the_session_goes_on_with_it(bench: Bench) -> None:
    session = guarded(bench, "echo on; until [ -e go ]; do sleep 0.02; done", seconds=600)
    bench.until(session, "on")
    reboot(bench, session)
    until(lambda: bench.log(session).count("on\n") == 2)
    Path(bench.layout.project, "go").touch()
    assert bench.end(session).exit_code == 0
    end_guard(bench)


def test_status_shows_what_is_secured_and_why_it_failed(bench: Bench) -> None:
    Path(bench.layout.project, "train.py").write_text(
        "import os, pathlib, time, zipfile\n"
        "run = pathlib.Path(os.environ['CLOUDTRAIN_RUN_DIR'])\n"
        "(run / 'results.csv').write_text('epoch,loss\\n7,0.5\\n')\n"
        "zipfile.ZipFile(run / 'last.pt', 'w').writestr('x', 'y')\n"
        "secured = pathlib.Path(os.environ['CLOUDTRAIN_SESSION'], 'secured')\n"
        "while not secured.exists(): time.sleep(0.02)\n"
        "open('/nowhere/at.all')\n"
    )
    ended = bench.end(bench.start("python train.py", python=sys.executable))
    assert ended.state == "failed"
    found = status(bench.remote, bench.layout, bench.config("true"))
    assert found is not None
    assert found.secured is not None
    assert (found.secured.epoch, found.secured.metrics) == (7, {"loss": 0.5})
    assert 0 <= found.secured.age_s < 60
    assert found.trouble is not None
    assert found.trouble.kind == "missing-file"
