"""What the machine does alone says how far it is, and two that do it do not spoil each other's work."""

from __future__ import annotations

import http.server
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloudtrain.events import Event, Progress
from cloudtrain.models.config import Config, Dataset
from cloudtrain.models.lent import Lent
from cloudtrain.models.run import Layout
from cloudtrain.paths import shipped
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.transfer.dataset import DatasetSource, inspect_dataset
from cloudtrain.transfer.push import push_dataset
from cloudtrain.transfer.told import Told
from tests.support.sshd import Sshd
from tests.transfer.conftest import Seen

TABLE = bytes(range(256)) * 4096


class Reacting(Seen):
    """A reporter that does something at the first progress it is waiting for."""

    def __init__(self, waits_for: Callable[[Progress], bool], then: Callable[[], object]) -> None:
        super().__init__()
        self.waits_for: Callable[[Progress], bool] | None = waits_for
        self.then = then

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, Progress) and self.waits_for is not None and self.waits_for(event):
            self.waits_for = None
            self.then()

    def progress(self) -> list[Progress]:
        return [event for event in self.events if isinstance(event, Progress)]


class Halting(http.server.BaseHTTPRequestHandler):
    """Serves one body; stands still in its middle until it may go on. Knows ranges, unless told not to."""

    body: ClassVar[bytes]
    go_on: ClassVar[threading.Event]
    asked: ClassVar[list[str]]
    ranges: ClassVar[bool]

    def do_GET(self) -> None:
        begin = 0
        said = self.headers["Range"]
        if said and self.ranges:
            begin = int(said.removeprefix("bytes=").split("-")[0])
        self.asked.append(said or "")
        if begin >= len(self.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.body)}")
            self.end_headers()
            return
        self.send_response(206 if said and self.ranges else 200)
        if said and self.ranges:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(self.body) - begin))
        self.end_headers()
        middle = max(begin, len(self.body) // 2)
        self.wfile.write(self.body[begin:middle])
        self.go_on.wait(60)
        self.wfile.write(self.body[middle:])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "machine").start()
    yield server
    server.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_bytes(TABLE)
    with tarfile.open(tmp_path / "set.tar", "w") as made:
        made.add(tmp_path / "a.csv", "a.csv")
    return tmp_path / "set.tar"


@pytest.fixture
def halting(archive: Path) -> Iterator[tuple[str, type[Halting]]]:
    own: dict[str, Any] = {
        "body": archive.read_bytes(),
        "go_on": threading.Event(),
        "asked": [],
        "ranges": True,
    }
    handler = type("Handler", (Halting,), own)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/set.tar", handler
    handler.go_on.set()
    server.shutdown()
    server.server_close()


def source_of(dataset: Dataset, base: Path) -> DatasetSource:
    found = inspect_dataset(Config(dataset=dataset), base)
    assert found is not None
    return found


def from_address(url: str, base: Path) -> tuple[DatasetSource, tuple[Lent, ...]]:
    return source_of(Dataset(source="s3://data/set.tar"), base), (Lent("set.tar", 1, url, "v"),)


def test_a_download_says_how_far_it_is(
    line: Remote, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    url, handler = halting
    half = len(handler.body) // 2 - 65536  # what curl holds back
    seen = Reacting(lambda at: at.done >= half, handler.go_on.set)
    source, lent = from_address(url, base)
    push_dataset(line, source, layout, seen, lent=lent)
    at = next(one for one in seen.progress() if one.done >= half)
    assert (at.total, at.unit, at.detail) == (len(handler.body), "bytes", "downloads")
    assert (Path(layout.data) / "a.csv").read_bytes() == TABLE
    assert not list(Path(layout.root).rglob("*.size"))


def test_two_that_fetch_one_archive_fetch_it_once(
    machine: Sshd, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    """The first is what a line that broke has left: it goes on."""
    url, handler = halting
    source, lent = from_address(url, base)
    failed: list[BaseException] = []
    both: list[threading.Thread] = []

    def fetch(seen: Seen) -> None:
        try:
            with connect(machine.target) as line:
                push_dataset(line, source, layout, seen, lent=lent)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    second = Reacting(lambda at: at.done > 0, handler.go_on.set)  # it waits, and shows how far the first is
    both.append(threading.Thread(target=fetch, args=(second,)))
    first = Reacting(lambda at: at.done > 0, both[0].start)
    both.append(threading.Thread(target=fetch, args=(first,)))
    both[1].start()
    both[1].join(60)
    both[0].join(60)
    assert failed == []
    assert handler.asked == [""]
    assert second.progress()


def test_what_is_there_already_is_not_fetched_again(
    line: Remote, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    url, handler = halting
    handler.go_on.set()
    source, lent = from_address(url, base)
    push_dataset(line, source, layout, Seen(), lent=lent)
    (there,) = (Path(layout.root) / "archives").glob("*.tar")
    every = len(handler.body)
    for kept, ranges, asked in ((every, True, 1), (1000, True, 1), (1000, False, 2), (every, False, 2)):
        handler.ranges = ranges
        handler.asked.clear()
        there.with_name(there.name + ".part").write_bytes(handler.body[:kept])
        there.unlink()
        push_dataset(line, source, layout, Seen(), lent=lent)
        assert there.read_bytes() == handler.body
        assert len(handler.asked) <= asked, (kept, ranges, handler.asked)


def test_an_archive_says_how_far_it_is_read(
    machine: Sshd, layout: Layout, base: Path, tmp_path: Path, archive: Path
) -> None:
    (base / "set.tar").write_bytes(archive.read_bytes())
    gate = tmp_path / "gate"
    half = archive.stat().st_size // 2
    there = f"{layout.root}/archives/set.tar"
    machine.bring({"tar": f"""
        if [ "$2" = '{there}' ]; then
            exec 7<'{there}'
            head -c {half} <&7 >/dev/null
            until [ -e '{gate}' ]; do sleep 0.05; done
            exec 7<&-
        fi
        exec /bin/tar "$@"
    """})  # fmt: skip
    seen = Reacting(lambda at: at.detail == "unpacks" and at.done >= half, gate.touch)
    with connect(machine.target) as line:
        push_dataset(line, source_of(Dataset(path="set.tar"), base), layout, seen)
    at = next(one for one in seen.progress() if one.detail == "unpacks" and one.done >= half)
    assert at.total == archive.stat().st_size


class Steps(Seen):
    """Makes a file at the second progress after each of the others came to be."""

    def __init__(self, *steps: tuple[Path, Path]) -> None:
        super().__init__()
        self.steps, self.after = list(steps), 0

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, Progress) and self.steps and self.steps[0][0].exists():
            self.after += 1
            if self.after == 2:
                self.steps.pop(0)[1].touch()
                self.after = 0


def test_an_archive_that_nobody_reads_just_now_says_where_it_stands(
    machine: Sshd, layout: Layout, base: Path, tmp_path: Path, archive: Path
) -> None:
    """While its unpacker is installed, and while its links are looked at: silence is a dead line."""
    (base / "set.tar").write_bytes(archive.read_bytes())
    half = archive.stat().st_size // 2
    there = f"{layout.root}/archives/set.tar"
    before, begun, reads, seen_it, after, ended = (tmp_path / f"{number}" for number in range(6))
    machine.bring({"tar": f"""
        await() {{ for i in $(seq 100); do [ -e "$1" ] && return; sleep 0.1; done; exit 1; }}
        if [ "$2" = '{there}' ]; then
            touch '{before}'; await '{begun}'
            exec 7<'{there}'; head -c {half} <&7 >/dev/null
            touch '{reads}'; await '{seen_it}'
            exec 7<&-; touch '{after}'; await '{ended}'
        fi
        exec /bin/tar "$@"
    """})  # fmt: skip
    seen = Steps((before, begun), (reads, seen_it), (after, ended))
    with connect(machine.target) as line:
        push_dataset(line, source_of(Dataset(path="set.tar"), base), layout, seen)
    at = [one.done for one in seen.events if isinstance(one, Progress) and one.detail == "unpacks"]
    assert at.count(0) >= 2
    far = next(number for number, done in enumerate(at) if done >= half)
    assert min(at[far : far + 3]) >= half


def test_a_command_shows_its_last_line(line: Remote, layout: Layout, base: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"printf 'begun\\n 10%%\\r half way\\t50%%\\r'; until [ -e '{gate}' ]; do sleep 0.05; done; echo x > a"
    seen = Reacting(lambda at: "half way" in at.detail, gate.touch)
    push_dataset(line, source_of(Dataset(command=command), base), layout, seen)
    assert (Path(layout.data) / "a").read_text() == "x\n"
    assert next(one.detail for one in seen.progress() if "half" in one.detail).strip() == "half way 50%"


def test_a_clone_says_how_far_it_is(line: Remote, layout: Layout, tmp_path: Path) -> None:
    there = tmp_path / "there"
    git = ["git", "-C", str(there), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q", str(there)], check=True)
    for number in range(20):
        (there / f"f{number}").write_text(f"{number}")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    seen = Seen()
    told = Told(seen, unit="objects")
    script = (shipped("templates") / "project-clone.sh").read_text()
    said = line.script(script, layout.project, f"file://{there}", "", on_line=told.line)
    assert len(said.stdout.split()[-1]) >= 7
    at = [event for event in seen.events if isinstance(event, Progress)]
    assert any(one.detail == "Receiving objects" and one.done == one.total == 22 for one in at)
    assert all(one.unit == "objects" for one in at)
    none = line.script(script, f"{layout.project}-2", f"file://{there}-not", "", check=False)
    assert not none.ok
    assert "-not" in none.stderr


def test_rate_and_time_left() -> None:
    seen, now = Seen(), [0.0]
    told = Told(seen, "downloads", clock=lambda: now[0])
    for at, done in ((0.0, 500), (1.0, 600), (2.0, 900), (3.0, 100)):  # at last from its beginning again
        now[0] = at
        told.line(f"@at\t{done}\t1000\t0\t0\t")
    told.line("@at\tx")
    told.line("other")
    said = [event for event in seen.events if isinstance(event, Progress)]
    assert [(one.rate, one.best, one.eta_s) for one in said] == [
        (None, None, None), (100, 100, 4), (200, 300, 0.5), (None, None, None),
    ]  # fmt: skip
