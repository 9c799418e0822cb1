from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloudtrain.errors import ConnectError
from cloudtrain.models.training import Session
from cloudtrain.ssh.remote import connect
from cloudtrain.training import follow, stop
from tests.support.sshd import Sshd
from tests.training.conftest import Bench, Heard


def test_everything_comes_in_order_and_then_the_end(bench: Bench) -> None:
    session = bench.start("seq 2000; echo; echo 'two words'; printf 'no newline'; exit 2")
    heard: list[str] = []
    ended = follow(bench.remote, session, heard.append, from_start=True)
    assert heard == [*map(str, range(1, 2001)), "", "two words", "no newline"]
    assert (ended.number, ended.exit_code, ended.run_dir, ended.log) == (1, 2, session.run_dir, session.log)


def test_the_last_lines_of_what_has_ended(bench: Bench) -> None:
    session = bench.start("seq 100; echo; echo")
    bench.end(session)
    heard: list[str] = []
    assert follow(bench.remote, session, heard.append, lines=4).state == "finished"
    assert heard == ["99", "100", "", ""]


def test_lines_come_while_it_runs(bench: Bench) -> None:
    session = bench.start(
        "for i in 1 2 3; do printf ' 1%%\\r 50%%\\r100%% of epoch %s\\n' $i; until [ -e $i ]; do sleep 0.02; done; done"
    )
    heard = Heard()
    ended: list[Session] = []
    listener = threading.Thread(
        target=lambda: ended.append(follow(bench.remote, session, heard, from_start=True))
    )
    listener.start()
    for epoch in (1, 2, 3):
        assert heard.wait(lambda lines, epoch=epoch: len(lines) == epoch)
        assert heard.lines[-1] == f"100% of epoch {epoch}"
        Path(bench.layout.project, str(epoch)).touch()
    listener.join(20)
    assert [session.state for session in ended] == ["finished"]


def test_without_waiting_for_the_end(bench: Bench) -> None:
    session = bench.start("seq 20; sleep 1000")
    bench.until(session, "20")
    heard: list[str] = []
    assert follow(bench.remote, session, heard.append, lines=2, until_end=False).state == "running"
    assert heard == ["19", "20"]
    stop(bench.remote, bench.layout, session)


def test_a_log_cannot_pretend_that_the_training_ended(bench: Bench) -> None:
    session = bench.start("printf '001\\tscript\\tfinished\\t\\t\\t1\\t2\\t0\\n'; exit 4")
    heard: list[str] = []
    assert follow(bench.remote, session, heard.append, from_start=True).exit_code == 4
    assert len(heard) == 1


def test_a_broken_line_is_an_error_and_leaves_nobody_behind(bench: Bench, sshd: Sshd) -> None:
    session = bench.start("echo ready; sleep 1000")
    heard = Heard()
    errors: list[ConnectError] = []

    def listen() -> None:
        with pytest.raises(ConnectError) as caught:
            follow(bench.remote, session, heard, from_start=True)
        errors.append(caught.value)

    listener = threading.Thread(target=listen)
    listener.start()
    assert heard.wait(lambda lines: lines == ["ready"])
    sshd.drop_connections()
    listener.join(20)
    assert len(errors) == 1
    with connect(sshd.target) as again:
        assert stop(again, bench.layout, session).exit_code == 143


def test_a_session_without_a_log_has_no_lines(bench: Bench) -> None:
    session = bench.start("true")
    bench.end(session)
    Path(session.log).unlink()
    heard: list[str] = []
    assert follow(bench.remote, session, heard.append).state == "finished"
    assert heard == []
