"""The engine over a real sshd, with steps that touch files."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.bootstrap import REBOOT_NEEDED, Step, converge
from cloudtrain.errors import ConnectError, DidNotConverge, StepError, UsageError
from cloudtrain.events import Event, Note, Silent, StageFinished, Timeline
from cloudtrain.models.run import Layout
from cloudtrain.models.training import StepReport
from cloudtrain.ssh.remote import Remote, connect
from tests.support.sshd import Sshd


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def stages(self) -> list[tuple[str, str, bool]]:
        return [(e.stage, e.outcome, e.ok) for e in self.events if isinstance(e, StageFinished)]


@pytest.fixture
def layout(sshd: Sshd) -> Layout:
    return Layout(f"{sshd.home}/cloudtrain/a run-1")


@pytest.fixture
def files(sshd: Sshd) -> Path:
    folder = sshd.home / "it's here"
    folder.mkdir()
    return folder


def touch(files: Path, name: str, *needs: str, extra: str = "", after: str = "") -> Step:
    """A step whose fact is a file."""
    path = f'"{files}/{name}"'
    return Step(
        name=name,
        reason=f"{name} is wanted",
        check=f"[ -e {path} ] || {{ echo no {name}; exit 1; }}",
        apply=f"set -e\n{extra}\necho making {name}\necho x >>{path}\n{after}",
        needs=needs,
        timeout_s=20,
    )


def go(remote: Remote, layout: Layout, *steps: Step, **options: object) -> dict[str, StepReport]:
    done = converge(remote, steps, layout, Timeline(Silent()), **options)  # pyright: ignore[reportArgumentType]
    assert [report.name for report in done] == [step.name for step in steps]
    return {report.name: report for report in done}


def outcomes(reports: dict[str, StepReport]) -> dict[str, str]:
    return {name: report.outcome for name, report in reports.items()}


def test_twice_is_once(remote: Remote, layout: Layout, files: Path) -> None:
    steps = (touch(files, "a"), touch(files, "b", "a"), touch(files, "c", "a", "absent"))
    assert set(outcomes(go(remote, layout, *steps)).values()) == {"changed"}
    assert set(outcomes(go(remote, layout, *steps)).values()) == {"satisfied"}
    assert {path.read_text() for path in files.iterdir()} == {"x\n"}
    assert Path(layout.logs, "a.log").read_text() == "making a\n"


def test_stages_are_told(remote: Remote, layout: Layout, files: Path) -> None:
    (files / "a").touch()
    heard = Heard()
    converge(remote, (touch(files, "a"), touch(files, "b")), layout, Timeline(heard))
    assert heard.stages() == [("check steps", "1 of 2 hold", True), ("b", "changed", True)]


def test_dry_run_says_what_and_why(remote: Remote, layout: Layout, files: Path) -> None:
    (files / "a").touch()
    reports = go(remote, layout, touch(files, "a"), touch(files, "b"), dry_run=True)
    assert reports["a"].outcome == "satisfied"
    assert (reports["b"].outcome, reports["b"].detail) == ("pending", "b is wanted (no b)")
    assert not (files / "b").exists()
    assert not Path(layout.root).exists()


def test_only_takes_what_it_needs(remote: Remote, layout: Layout, files: Path) -> None:
    steps = (touch(files, "a"), touch(files, "b", "a"), touch(files, "c"))
    reports = converge(remote, steps, layout, Timeline(Silent()), only="b")
    assert [report.name for report in reports] == ["a", "b"]
    assert not (files / "c").exists()
    with pytest.raises(UsageError, match="no step `d`"):
        converge(remote, steps, layout, Timeline(Silent()), only="d")


def test_a_liar_is_caught(remote: Remote, layout: Layout, files: Path) -> None:
    liar = Step(name="liar", reason="r", check="echo still missing; false", apply="echo 'all is well'")
    with pytest.raises(DidNotConverge) as caught:
        go(remote, layout, liar, touch(files, "a"))
    assert "still missing" in caught.value.message
    assert f"{layout.logs}/liar.log" in caught.value.message
    assert "all is well" in caught.value.message
    assert "cloudtrain up" in caught.value.hint


def test_a_failure_stops_only_what_depends_on_it(remote: Remote, layout: Layout, files: Path) -> None:
    bad = touch(files, "bad", extra="for i in $(seq 40); do echo line $i; done; exit 3")
    steps = (bad, touch(files, "child", "bad"), touch(files, "grandchild", "child"), touch(files, "other"))
    heard = Heard()
    with pytest.raises(StepError) as caught:
        converge(remote, steps, layout, Timeline(heard))
    assert "step `bad` failed (exit 3)" in caught.value.message
    assert "line 40" in caught.value.message
    assert "line 20" not in caught.value.message
    assert sorted(path.name for path in files.iterdir()) == ["other"]
    assert ("bad", "failed", False) in heard.stages()
    assert "child" not in [stage for stage, _, _ in heard.stages()]


def test_every_failure_is_named(remote: Remote, layout: Layout, files: Path) -> None:
    steps = (touch(files, "one", extra="exit 1"), touch(files, "two", extra="exit 1"))
    with pytest.raises(StepError) as caught:
        go(remote, layout, *steps)
    assert "`one`" in caught.value.message
    assert "failed too: `two`" in caught.value.hint


def test_a_slow_step_is_ended(remote: Remote, layout: Layout, files: Path) -> None:
    slow = Step(name="slow", reason="r", check="false", apply="exec tail -f /dev/null", timeout_s=1)
    with pytest.raises(StepError, match="was ended after 1 s"):
        go(remote, layout, slow)


def test_checks_do_not_disturb_each_other(remote: Remote, layout: Layout, files: Path) -> None:
    greedy = Step(name="greedy", reason="r", check="cat; cd /; set -e; x=1; exit 0", apply="false")
    steps = (greedy, touch(files, "a"), Step(name="last", reason="r", check='[ -z "${x-}" ]', apply="false"))
    (files / "a").touch()
    assert set(outcomes(go(remote, layout, *steps)).values()) == {"satisfied"}


def test_what_depends_on_a_change_is_looked_at_again(remote: Remote, layout: Layout, files: Path) -> None:
    (files / "child").touch()
    parent = touch(files, "parent", after=f'rm "{files}/child"')
    reports = go(remote, layout, parent, touch(files, "child", "parent"))
    assert outcomes(reports) == {"parent": "changed", "child": "changed"}


def test_independent_steps_run_side_by_side(remote: Remote, layout: Layout, files: Path) -> None:
    """Each waits at a fifo for the other: one after the other they would never end."""
    os.mkfifo(files / "fifo")
    fifo = f'"{files}/fifo"'
    left = touch(files, "left", extra=f"echo met >{fifo}")
    right = touch(files, "right", extra=f"read -r word <{fifo}; [ $word = met ]")
    assert set(outcomes(go(remote, layout, left, right)).values()) == {"changed"}


def test_steps_of_one_lock_do_not_overlap(remote: Remote, layout: Layout, files: Path) -> None:
    alone = f'mkdir "{files}/alone"'
    steps = tuple(
        Step(
            name=f"s{number}",
            reason="r",
            check=f'[ -e "{files}/{number}" ]',
            apply=f'set -e; {alone}; touch "{files}/{number}"; rmdir "{files}/alone"',
            lock="apt",
        )
        for number in range(6)
    )
    assert set(outcomes(go(remote, layout, *steps)).values()) == {"changed"}


def test_steps_for_the_project_wait_for_it(remote: Remote, layout: Layout, files: Path) -> None:
    ready = threading.Event()
    file = f'"{files}/requirements.txt"'
    waiting = Step(
        name="waits", reason="r", check=f'cmp -s {file} "{files}/seen"', apply=f'cp {file} "{files}/seen"',
        waits_for_project=True,
    )  # fmt: skip
    (files / "requirements.txt").write_text("old")
    (files / "seen").write_text("old")  # as long as the push runs, the check would hold

    class Pushes(Silent):
        """Ends the push when another step has been applied."""

        def emit(self, event: Event) -> None:
            if isinstance(event, StageFinished) and event.stage == "a":
                (files / "requirements.txt").write_text("new")
                ready.set()

    steps = (waiting, touch(files, "a"))
    reports = converge(remote, steps, layout, Timeline(Pushes()), project_ready=ready)
    assert [report.outcome for report in reports] == ["changed", "changed"]
    assert (files / "seen").read_text() == "new"
    again = converge(remote, steps, layout, Timeline(Silent()), project_ready=ready)
    assert [report.outcome for report in again] == ["satisfied", "satisfied"]


def test_a_reboot_is_asked_for_and_waited_for(remote: Remote, layout: Layout, files: Path) -> None:
    driver = touch(files, "driver", extra=f'[ -e "{files}/booted" ] || exit 194')
    steps = (driver, touch(files, "gpu", "driver"), touch(files, "other"))
    first = go(remote, layout, *steps)
    assert (first["driver"].outcome, first["driver"].detail) == ("changed", REBOOT_NEEDED)
    assert outcomes(first) == {"driver": "changed", "gpu": "skipped", "other": "changed"}
    (files / "booted").touch()
    assert outcomes(go(remote, layout, *steps)) == {
        "driver": "changed", "gpu": "changed", "other": "satisfied",
    }  # fmt: skip


def test_a_cut_line_is_repaired(sshd: Sshd, layout: Layout, files: Path) -> None:
    """The machine finishes what it began; the next call waits for it and finds it done."""
    os.mkfifo(files / "fifo")
    step = touch(files, "long", extra=f'read -r _ <"{files}/fifo"')
    failed: list[BaseException] = []

    def first() -> None:
        with connect(sshd.target) as remote:
            try:
                go(remote, layout, step)
            except ConnectError as error:
                failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    with (files / "fifo").open("w") as fifo:  # opens once the apply reads
        sshd.drop_connections()
        thread.join(30)
        assert len(failed) == 1
        fifo.write("go on\n")
    with connect(sshd.target) as remote:
        assert outcomes(go(remote, layout, step)) == {"long": "satisfied"}
    assert (files / "long").read_text() == "x\n"


def test_a_killed_apply_is_repaired(remote: Remote, layout: Layout, files: Path) -> None:
    step = touch(files, "half", extra=f'[ -e "{files}/second" ] || {{ touch "{files}/second"; kill -9 $$; }}')
    with pytest.raises(StepError, match="was killed"):
        go(remote, layout, step)
    assert outcomes(go(remote, layout, step)) == {"half": "changed"}


def test_a_script_that_is_killed_alone_leaves_the_lock_to_its_apply(
    remote: Remote, layout: Layout, files: Path
) -> None:
    """Not a killed group, as above: the machine's own memory killer takes one process."""
    fifo = files / "fifo"
    os.mkfifo(fifo)
    parent = "parent() { cut -d' ' -f4 /proc/$1/stat; }"
    killing = f'{parent}\nkill -9 "$(parent "$(parent "$PPID")")"\nread -r _ <"{fifo}"'
    step = touch(files, "long", extra=killing)
    with pytest.raises(StepError, match="did not run"):
        go(remote, layout, step)
    with pytest.raises(StepError, match="waited 1 s for another"):
        go(remote, layout, replace(step, timeout_s=1))
    fifo.write_text("go on\n")
    assert outcomes(go(remote, layout, step)) == {"long": "satisfied"}
    assert (files / "long").read_text() == "x\n"


def test_what_a_step_wants_known_is_told(remote: Remote, layout: Layout, files: Path) -> None:
    step = touch(files, "odd", extra="echo '@note it was the second choice'")
    heard = Heard()
    (report,) = converge(remote, (step,), layout, Timeline(heard))
    assert (report.outcome, report.detail) == ("changed", "it was the second choice")
    assert Note("step `odd`: it was the second choice", level="warning") in heard.events


def test_a_secret_in_a_step_is_in_no_argument_list(remote: Remote, layout: Layout, files: Path) -> None:
    seen = "; ".join(f'tr "\\0" " " </proc/{pid}/cmdline' for pid in ("$$", "$PPID"))
    secret = f'INDEX=https://me:s3cret@example.org\n{{ {seen}; ps -eo args || true; }} >"{files}/args"'
    go(remote, layout, touch(files, "quiet", extra=secret))
    assert "s3cret" not in (files / "args").read_text()
    assert Path(layout.root, "steps/quiet.sh").stat().st_mode & 0o077 == 0


def _refused(remote: Remote, layout: Layout, files: Path) -> None:
    step = replace(touch(files, "base"), root=True, by_hand="sudo apt-get install -y screen")
    reports = go(remote, layout, step, touch(files, "env", "base"))
    assert outcomes(reports) == {"base": "refused", "env": "changed"}
    assert reports["base"].detail == "sudo apt-get install -y screen"
    with pytest.raises(StepError, match="sudo apt-get install"):
        go(remote, layout, replace(step, required=True))
    (files / "base").touch()
    assert outcomes(go(remote, layout, step)) == {"base": "satisfied"}


def test_a_machine_that_is_not_root(sshd: Sshd, layout: Layout, files: Path) -> None:
    """`id` answers for an ordinary user without sudo, whoever runs the tests."""
    sshd.bring({"id": "echo 1000", "sudo": "exit 1"})
    with connect(sshd.target) as remote:
        _refused(remote, layout, files)


NFS = """shift; for last; do :; done
case "$last" in *.sh) ;; *) exec "$@" ;; esac
mv "$last" "$last.hidden"; "$@"; code=$?; mv "$last.hidden" "$last"; exit $code"""


def test_root_need_not_read_the_home(sshd: Sshd, layout: Layout, files: Path) -> None:
    """On NFS with root_squash it may not; whoever runs the tests may."""
    sshd.bring({"id": "echo 1000", "sudo": NFS})
    said = f'cat >"{files}/input"; echo "$0" >"{files}/name"'
    with connect(sshd.target) as remote:
        assert outcomes(go(remote, layout, replace(touch(files, "base", extra=said), root=True))) == {
            "base": "changed"
        }
        with pytest.raises(StepError, match=r"steps/bad\.sh: line 3: nowhere: command not found"):
            go(remote, layout, replace(touch(files, "bad", extra="\nnowhere"), root=True))
    assert (files / "input").read_text() == ""
    assert (files / "name").read_text() == f"{layout.root}/steps/base.sh\n"


FULL = "echo; echo 'tmpfs 100 100 12 100% /boot'; echo 'tmpfs 9 9 0 100% /var'"


def test_a_script_that_a_full_disk_cut_is_not_run(sshd: Sshd, layout: Layout, files: Path) -> None:
    sshd.bring({"cat": "head -n 2; exit 1", "df": FULL})
    with connect(sshd.target) as remote, pytest.raises(StepError, match="did not run: nothing can") as caught:
        go(remote, layout, touch(files, "env", extra=f'touch "{files}/began"'))
    assert "no space left on /boot: 12 KiB\nno space left on /var: 0 KiB" in str(caught.value)
    assert list(files.iterdir()) == []
    assert list(Path(layout.root, "steps").glob("*.sh*")) == []


def test_a_full_disk_is_said_where_a_step_hid_it(sshd: Sshd, layout: Layout, files: Path) -> None:
    sshd.bring({"df": FULL})
    liar = replace(touch(files, "liar"), apply="true")
    with connect(sshd.target) as remote, pytest.raises(DidNotConverge, match="no space left on /var: 0 KiB"):
        go(remote, layout, liar)


def test_a_dead_line_is_one_error(sshd: Sshd, layout: Layout, files: Path) -> None:
    with connect(sshd.target) as remote:
        remote.run("true")
        assert sshd.process is not None
        os.kill(sshd.process.pid, signal.SIGSTOP)
        try:
            sshd.drop_connections()
            with pytest.raises(ConnectError):
                go(remote, layout, touch(files, "a"))
        finally:
            os.kill(sshd.process.pid, signal.SIGCONT)
