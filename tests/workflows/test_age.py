"""`fetch-weights --watch --max-age`: the copy's age against its bound, by a clock that is given."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Never

import pytest

from cloudtrain.errors import AuthenticationFailed, CloudtrainError, HostKeyMismatch
from cloudtrain.events import Event, Note, Timeline
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.config import Config
from cloudtrain.workflows.fetch import Age, watch
from tests.transfer.conftest import Seen


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(seen: Seen) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in seen.events if isinstance(one, Note)]


def fetch(age: Age, clock: Clock, *, times: int, took: float, pause: float = 0) -> None:
    for _ in range(times):
        began = clock.now
        clock.now += took
        age.proven(began)
        clock.now += pause


def test_a_copy_within_its_bound_is_not_spoken_of() -> None:
    clock, seen = Clock(), Seen()
    age = Age(60, seen, clock)
    for _ in range(20):
        began = clock.now
        clock.now += 30
        age.proven(began)
        age.look()
    assert said(seen) == []


def test_a_line_that_is_lost_too_long_is_said_once_and_its_return_too() -> None:
    clock, seen = Clock(), Seen()
    age = Age(60, seen, clock)
    age.proven(clock.now)
    for _ in range(10):
        clock.now += 20
        age.look()
    fetch(age, clock, times=2, took=2)
    (late, back) = said(seen)
    assert late == ("warning", "the copy here is 80 s old, more than the 60 s asked for")
    assert back == ("info", "the copy here is up to date again")


def test_a_fetch_that_takes_longer_than_the_bound_cannot_keep_it() -> None:
    clock, seen = Clock(), Seen()
    age = Age(10, seen, clock)
    fetch(age, clock, times=3, took=25)
    assert said(seen) == [("warning", "one fetch takes 25 s: the copy here is older than 10 s")]


def test_the_look_before_counts_until_the_next_one_lands() -> None:
    """A fetch of 40 s after a pause of 15 s is of what was there when the one before began."""
    clock, seen = Clock(), Seen()
    age = Age(60, seen, clock)
    fetch(age, clock, times=3, took=40, pause=15)
    assert said(seen) == [("warning", "the copy here was 95 s old, more than the 60 s asked for")]


def test_a_fetch_that_stands_still_is_said_while_it_does() -> None:
    clock, heard = Clock(), threading.Event()

    class Hearing(Seen):
        def emit(self, event: Event) -> None:
            super().emit(event)
            heard.set()

    seen = Hearing()
    age = Age(60, seen, clock)
    began = clock.now
    with age.watched(0.01):
        clock.now += 61
        assert heard.wait(10)
    age.proven(began)
    assert said(seen) == [("warning", "the copy here is 61 s old, more than the 60 s asked for")]


@pytest.mark.parametrize("error", [HostKeyMismatch("another key"), AuthenticationFailed("no")])
def test_a_machine_that_is_another_or_refuses_us_ends_the_watch(
    tmp_path: Path, error: CloudtrainError
) -> None:
    def refused() -> Never:
        raise error

    def never(_: float) -> Never:
        raise AssertionError("it tries again")

    seen = Seen()
    with pytest.raises(type(error)):
        watch(RunFolder(tmp_path, refind=refused), Config(), Timeline(seen), seen, sleep=never)
    assert seen.events == []
