"""The guard as it runs: a real process, a real metadata service, real files and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.guard import guard

PROGRAM = str(guard.__file__)
TAG = "tags/instance/cloudtrain-deadline"


class Service(BaseHTTPRequestHandler):
    """IMDSv2: nothing without a token."""

    texts: dict[str, str]
    seen: list[str]

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200, "the-token")

    def do_GET(self) -> None:
        path = self.path.removeprefix("/latest/meta-data/")
        self.seen.append(path)
        if self.headers["X-aws-ec2-metadata-token"] != "the-token":
            self.answer(401, "")
        elif path in self.texts:
            self.answer(200, self.texts[path])
        else:
            self.answer(404, "<html>not found</html>")

    def answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def service() -> Iterator[tuple[str, dict[str, str], list[str]]]:
    texts: dict[str, str] = {}
    seen: list[str] = []
    handler = type("Handler", (Service,), {"texts": texts, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", texts, seen
    server.shutdown()
    thread.join()
    server.server_close()


class Machine:
    """A folder that the guard takes for a machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.off = folder / "off"
        self.state = folder / "state"
        self.home = folder / "home" / "u" / "cloudtrain"
        self.config: dict[str, Any] = {
            "deadline": int(time.time()) + 3600,
            "first_contact_s": 1200,
            "contact": [str(folder / "home" / "*" / "cloudtrain")],
            "state": str(self.state),
            "imds": None,
            "poweroff": ["touch", str(self.off)],
            "idle_s": 0,
            "grace_s": 0.5,
            "notify": f'echo "$CLOUDTRAIN_KIND: $CLOUDTRAIN_NOTICE" >>{folder}/told',
            "poll_s": 0.05,
        }
        self.guard: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        path = self.folder / "guard.json"
        path.write_text(json.dumps(self.config))
        with (self.folder / "journal").open("ab") as journal:
            self.guard = subprocess.Popen([sys.executable, "-I", PROGRAM, str(path)], stderr=journal)
        return self.guard.pid

    def stop(self) -> None:
        if self.guard is not None and self.guard.poll() is None:
            self.guard.kill()
        if self.guard is not None:
            self.guard.wait()

    def session(self, number: int = 1, run: str = "r-1") -> Path:
        made = self.home / run / "sessions" / f"{number:03d}"
        made.mkdir(parents=True)
        (made / "started").write_text(f"{int(time.time())}\n")
        return made

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.state / name).read_text())

    def kinds(self) -> list[str]:
        path = self.state / "notice.json"
        return [notice["kind"] for notice in json.loads(path.read_text())["notices"]] if path.exists() else []


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not pytest's folder, which other users may not enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = Machine(Path(folder))
        made.home.mkdir(parents=True)
        yield made
        made.stop()
        journal = (made.folder / "journal").read_text()
    assert "unexpected" not in journal


def until(holds: Callable[[], Any], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def looks(machine: Machine, more: int = 3) -> None:
    """Wait until the guard has looked a few times more."""
    journal = machine.folder / "journal"
    assert machine.guard is not None
    fd = f"/proc/{machine.guard.pid}/schedstat"
    before = int(Path(fd).read_text().split()[2])
    assert until(lambda: int(Path(fd).read_text().split()[2]) > before + more)
    assert journal.exists()


def run_as(folder: Path, pid: int) -> None:
    """Write down who supervises the session, as session-lib.sh does."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for name in ("supervisor", "trainer"):
        (folder / name).write_text(f"{boot} {pid} {fields[19]}\n")


@pytest.fixture
def trainer() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_the_deadline_ends_the_machine_and_leaves_a_receipt(machine: Machine) -> None:
    deadline = int(time.time()) + 2
    machine.config["deadline"] = deadline
    machine.start()
    assert until(machine.off.exists)
    assert time.time() >= deadline
    receipt = machine.json("receipt.json")
    assert (receipt["why"], receipt["deadline"], receipt["sessions"]) == ("deadline", deadline, [])
    assert receipt["at"] >= deadline
    assert machine.kinds() == ["deadline-soon", "deadline"]
    assert until(lambda: "deadline: the lease has ended" in (machine.folder / "told").read_text())


def test_the_trainer_is_told_and_waited_for(machine: Machine, trainer: subprocess.Popen[bytes]) -> None:
    folder = machine.session()
    run_as(folder, trainer.pid)
    machine.config.update(deadline=int(time.time()), grace_s=60)
    machine.start()
    assert until((folder / "notice").exists)
    told = json.loads((folder / "notice").read_text())
    assert told["kind"] == "deadline"
    assert told["by"] == pytest.approx(told["at"] + 60)  # pyright: ignore[reportUnknownMemberType]
    looks(machine)
    assert not machine.off.exists()
    (folder / "secured").write_text("{}")
    assert until(machine.off.exists)
    assert machine.json("receipt.json")["sessions"][0]["state"] == "running"


def test_the_tag_is_read_live_and_stays_when_the_service_goes(
    machine: Machine, service: tuple[str, dict[str, str], list[str]]
) -> None:
    base, texts, _ = service
    end = int(time.time()) + 3
    machine.config.update(imds=base, deadline=int(time.time()) + 9000)
    texts[TAG] = str(end)
    machine.start()
    assert until(
        lambda: (machine.state / "state.json").exists() and machine.json("state.json")["deadline"] == end
    )
    del texts[TAG]
    assert until(machine.off.exists)
    assert int(time.time()) >= end


def test_extending_moves_the_deadline(
    machine: Machine, service: tuple[str, dict[str, str], list[str]]
) -> None:
    base, texts, seen = service
    later = int(time.time()) + 9000
    machine.config.update(imds=base, deadline=int(time.time()) + 1)
    texts[TAG] = str(later)
    machine.start()
    assert until(lambda: time.time() > machine.config["deadline"] + 1)
    assert not machine.off.exists()
    assert machine.json("status.json")["deadline"] == later
    assert "spot/instance-action" in seen


@pytest.mark.parametrize(
    "answer", [b"", b"garbage", b"HTTP/1.0 500 no\r\n\r\n", b"HTTP/1.0 200 OK\r\nDate: never\r\n\r\nx"]
)
def test_a_strange_metadata_service_costs_nothing(machine: Machine, answer: bytes) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            server.settimeout(0.05)
            while not done.is_set():
                try:
                    link, _ = server.accept()
                except TimeoutError:
                    continue
                with link:
                    link.recv(4096)
                    link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        machine.config.update(
            imds=f"http://127.0.0.1:{server.getsockname()[1]}", deadline=int(time.time()) + 1
        )
        machine.start()
        found = until(machine.off.exists)
        done.set()
        thread.join()
    assert found


def test_a_spot_notice_reaches_the_trainer(
    machine: Machine, service: tuple[str, dict[str, str], list[str]], trainer: subprocess.Popen[bytes]
) -> None:
    base, texts, _ = service
    folder = machine.session()
    run_as(folder, trainer.pid)
    machine.config["imds"] = base
    machine.start()
    assert until(machine.state.exists)
    texts["spot/instance-action"] = '{"action": "stop", "time": "2026-11-21T10:00:00Z"}'
    assert until((folder / "notice").exists)
    assert json.loads((folder / "notice").read_text())["kind"] == "spot"
    assert machine.kinds() == ["spot"]
    assert not machine.off.exists()


def test_nobody_came(machine: Machine) -> None:
    machine.home.rmdir()
    machine.config["first_contact_s"] = 0.001
    machine.start()
    assert until(machine.off.exists)
    assert machine.json("receipt.json")["why"] == "no-contact"


def test_an_interrupted_session_is_continued_as_its_owner(machine: Machine) -> None:
    folder = machine.session()
    (folder / "resume.sh").write_text('echo "$(id -u) $HOME $PWD" >"$(dirname "$0")/resumed"\n')
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() == 0:
        for path in (folder, folder / "resume.sh"):
            os.chown(path, owner, owner)
    machine.start()
    assert until(lambda: (folder / "resumed").exists() and (folder / "resumed").read_text())
    uid, _, where = (folder / "resumed").read_text().split()
    assert (int(uid), where) == (owner, str(folder))
    assert "resume" in machine.kinds()


@pytest.mark.parametrize("left", ["exit", "stop"])
def test_what_ended_or_was_stopped_is_not_started(machine: Machine, left: str) -> None:
    folder = machine.session()
    (folder / "resume.sh").write_text('touch "$(dirname "$0")/resumed"\n')
    (folder / left).write_text("0 1\n")
    machine.start()
    assert until((machine.state / "status.json").exists)
    looks(machine, 6)
    assert not (folder / "resumed").exists()


def test_a_link_in_the_users_folder_leads_root_nowhere(
    machine: Machine, trainer: subprocess.Popen[bytes]
) -> None:
    folder = machine.session()
    run_as(folder, trainer.pid)
    victim = machine.folder / "victim"
    victim.write_text("mine")
    for name in ("notice", "notice.part"):
        (folder / name).symlink_to(victim)
    machine.config["deadline"] = int(time.time())
    machine.start()
    assert until(machine.off.exists)
    assert victim.read_text() == "mine"
    assert json.loads((folder / "notice").read_text())["kind"] == "deadline"


def test_without_the_right_to_power_off_it_ends_the_training(
    machine: Machine, trainer: subprocess.Popen[bytes]
) -> None:
    folder = machine.session()
    run_as(folder, trainer.pid)
    machine.config.update(poweroff=None, deadline=int(time.time()))
    machine.start()
    assert trainer.wait(10) == -signal.SIGTERM
    assert (folder / "stop").exists()
    assert machine.json("status.json")["cannot"]


def test_a_shell_ends_before_what_it_runs(machine: Machine) -> None:
    shells: list[subprocess.Popen[bytes]] = []
    for number in range(12):  # in which order processes are found depends on their numbers
        folder = machine.session(run=f"r-{number}")
        mark = dict(os.environ, CLOUDTRAIN_SESSION=str(folder))
        shell = subprocess.Popen(["sh", "-c", "sleep 600 | sleep 600 | sleep 600; exit 0"], env=mark)
        assert until(lambda folder=folder: len(guard.started_by(str(folder))) == 4)
        run_as(folder, shell.pid)
        shells.append(shell)
    machine.config.update(poweroff=None, deadline=int(time.time()))
    machine.start()
    assert [shell.wait(10) for shell in shells] == [-signal.SIGTERM] * 12
    assert until(lambda: not guard.started_by(str(machine.home / "r-0" / "sessions" / "001")))


SAVING = """
import os, signal, sys
there, back = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(there[1])
    os.write(back[1], os.read(there[0], 1))
    os._exit(0)
os.close(back[1])
def save(*_):
    os.write(there[1], b"x")
    sys.exit(0 if os.read(back[0], 1) == b"x" else 7)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
signal.pause()
"""


def test_a_trainer_saves_with_its_workers_still_there(machine: Machine) -> None:
    folder = machine.session()
    mark = dict(os.environ, CLOUDTRAIN_SESSION=str(folder))
    with subprocess.Popen([sys.executable, "-c", SAVING], env=mark, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"ready\n"
        run_as(folder, trainer.pid)
        machine.config.update(poweroff=None, deadline=int(time.time()))
        machine.start()
        assert trainer.wait(10) == 0
    assert until(lambda: not guard.started_by(str(folder)))


def test_killed_and_started_again_it_renews_nothing(
    machine: Machine, service: tuple[str, dict[str, str], list[str]]
) -> None:
    base, texts, _ = service
    machine.config["imds"] = base
    texts[TAG] = str(int(time.time()) + 2)
    pid = machine.start()
    assert until(
        lambda: (
            (machine.state / "state.json").exists()
            and machine.json("state.json")["deadline"] == int(texts[TAG])
        )
    )
    os.kill(pid, signal.SIGKILL)
    machine.stop()
    machine.config["imds"] = None  # what it once knew counts
    machine.start()
    assert until(machine.off.exists)


def test_where_there_are_no_tags_the_file_extends_a_lease(machine: Machine) -> None:
    machine.config.update(deadline=int(time.time()) + 9000)
    machine.start()
    assert until((machine.state / "state.json").exists)
    write_config(machine, deadline=int(time.time()) + 1)
    assert until(machine.off.exists)


def write_config(machine: Machine, **changes: Any) -> None:
    part = machine.folder / "guard.json.part"
    part.write_text(json.dumps({**machine.config, **changes}))
    part.replace(machine.folder / "guard.json")


def test_where_nothing_can_be_written_the_deadline_holds(machine: Machine) -> None:
    machine.state.write_text("a file, not a folder")
    machine.config["deadline"] = int(time.time()) + 1
    machine.start()
    assert until(machine.off.exists)


def test_input_counts_and_output_does_not() -> None:
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    look = guard.Look({})

    def typed() -> bool:
        return look.changed([name], "st_atime")

    try:
        os.utime(name, (1, 1))  # the kernel notes times of terminals by steps of eight seconds
        assert not typed()
        os.write(theirs, b"output of a forgotten watch\n")
        os.read(ours, 100)
        assert not typed()
        os.write(ours, b"ls\n")
        os.read(theirs, 100)
        assert typed()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    "left", ["sessions/001/secured", "runs/001/evolve.csv", "runs/001/tune_results.ndjson"]
)
def test_whatever_session_secured_it_what_is_not_at_home_is_unfetched(machine: Machine, left: str) -> None:
    run = machine.session(1).parent.parent
    look = guard.Look(machine.config)
    assert not look(guard.clock(0)).unfetched
    (run / left).parent.mkdir(parents=True, exist_ok=True)
    (run / left).touch()
    (machine.session(2) / "exit").write_text("1 1\n")  # failed at once
    assert look(guard.clock(0)).unfetched
    (run / "fetched").touch()
    assert not look(guard.clock(0)).unfetched
    machine.start()  # the fixture reads its journal
    assert until((machine.folder / "journal").exists)


KERNEL = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2]])"


def kernel(child: str) -> subprocess.Popen[bytes]:
    """What looks like a Jupyter kernel whose cell runs a program."""
    command = [sys.executable, "-c", KERNEL, "ipykernel", child]
    return subprocess.Popen(command, start_new_session=True)


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    assert until(lambda: children.read_text().split())
    return int(children.read_text().split()[0])


@pytest.mark.parametrize(
    ("child", "busy"), [("while True: pass", True), ("import time; time.sleep(60)", False)]
)
def test_what_a_kernel_has_started_computes_for_it(child: str, busy: bool) -> None:
    process = kernel(child)
    try:
        look = guard.Look({})
        worker = child_of(process.pid)
        look._kernels()  # pyright: ignore[reportPrivateUsage]
        needed = 30 * os.sysconf("SC_CLK_TCK") // 20 + int(guard.stat_of(worker)[11])
        if busy:
            assert until(lambda: int(guard.stat_of(worker)[11]) > needed, 60)
        assert look._kernels() == ("a Jupyter kernel" if busy else "")  # pyright: ignore[reportPrivateUsage]
        assert {process.pid, worker} <= look.inside
        assert look._kernels() == ""  # pyright: ignore[reportPrivateUsage]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


SMI = """#!/bin/sh
# Answers as NVIDIA's program does with --format=csv,noheader,nounits.
case "$1" in
  --query-gpu=utilization.gpu) printf '%b' "$LOAD" ;;
  --query-compute-apps=pid) echo apps >>"$ASKED"; printf '%b' "$APPS" ;;
  *) exit 2 ;;
esac
"""


@pytest.mark.parametrize(
    ("load", "apps", "busy", "asked"),
    [
        ("0\\n97\\n", "", True, False),
        ("3\\n", "4711\\n", False, False),
        ("[N/A]\\n", "4711\\n", True, True),
        ("[N/A]\\n", "", False, True),
        ("No devices were found\\n", "", False, False),
    ],
)
def test_a_gpu_that_cannot_tell_its_load_is_used_by_who_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: str, apps: str, busy: bool, asked: bool
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in (("LOAD", load), ("APPS", apps), ("ASKED", str(tmp_path / "asked"))):
        monkeypatch.setenv(name, value)
    look = guard.Look({})
    assert settled(look) == ("the GPU" if busy else "")
    assert (tmp_path / "asked").exists() == asked
    if busy and asked:
        look.inside = {4711}  # a notebook's, which may be forgotten
        assert settled(look) == ""
    for smi in look.smi:
        smi.communicate()


def settled(look: guard.Look) -> str:
    """The third look's word: the first has no answer yet, the second none of who is there."""
    said = ""
    for _ in range(3):
        said = look._gpu()  # pyright: ignore[reportPrivateUsage]
        for smi in look.smi:
            smi.wait(10)  # one that still ran at the next look would be killed
    return said


def test_it_ends_when_its_config_is_taken_away(machine: Machine) -> None:
    machine.start()
    assert until((machine.state / "status.json").exists)
    (machine.folder / "guard.json").unlink()
    assert machine.guard is not None
    assert machine.guard.wait(10) == 0


def test_under_20_megabytes(machine: Machine, service: tuple[str, dict[str, str], list[str]]) -> None:
    for number in range(1, 30):
        machine.session(number)
    machine.config["imds"] = service[0]
    pid = machine.start()
    assert until(lambda: service[2].count(TAG) > 20)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert peak is not None
    print(f"the guard's peak: {int(peak[1]) / 1024:.1f} MB")  # noqa: T201
    assert int(peak[1]) < 20 * 1024


def test_the_service_dates_its_answers(service: tuple[str, dict[str, str], list[str]]) -> None:
    metadata = guard.Metadata(service[0])
    assert metadata.get("nothing") == ""
    assert abs(metadata.date - time.time()) < 3
    assert formatdate(metadata.date, usegmt=True)
