"""`fetch-weights --watch --max-age`: the copy's age against its bound, by a clock that is given."""

from __future__ import annotations

from cloudtrain.events import Note
from cloudtrain.workflows.fetch import Age
from tests.transfer.conftest import Seen


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(seen: Seen) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in seen.events if isinstance(one, Note)]


def test_a_copy_within_its_bound_is_not_spoken_of() -> None:
    clock, seen = Clock(), Seen()
    age = Age(60, seen, clock)
    for _ in range(20):
        began = clock.now
        clock.now += 59
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
    began = clock.now
    clock.now += 2
    age.proven(began)
    (late, back) = said(seen)
    assert late == ("warning", "the copy here is 80 s old, more than the 60 s asked for")
    assert back == ("info", "the copy here is up to date again")


def test_a_fetch_that_takes_longer_than_the_bound_cannot_keep_it() -> None:
    clock, seen = Clock(), Seen()
    age = Age(10, seen, clock)
    for _ in range(3):
        began = clock.now
        clock.now += 25
        age.proven(began)
    assert said(seen) == [("warning", "one fetch takes 25 s: the copy here is older than 10 s")]
