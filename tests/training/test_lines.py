from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.training.lines import Lines, last_state


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo", ["one", "two"]),
        (b" 1%\r 50%\r100%\nnext\n", ["100%", "next"]),
        (b" 1%\r 50%\r", [" 50%"]),
        (b"\x1b[34m\x1b[1mtrain: \x1b[0mhere\x1b[K\n", ["train: here"]),
        (b"\x1b]0;title\x07text\x1b[2J\n", ["text"]),
        (b"a\0\0b\n", ["ab"]),
        (b"\n\n", ["", ""]),
        ("größe ✅\n".encode(), ["größe ✅"]),
        (b"\xff\n", ["\ufffd"]),
        (b"a\tb\n", ["a\tb"]),
    ],
)
def test_lines_as_they_are_shown(output: bytes, shown: list[str]) -> None:
    lines = Lines()
    assert lines.feed(output) + lines.end() == shown


@given(st.lists(st.sampled_from(["ab", "\r", "\n", "ü", "\0", "12%"])), st.data())
def test_pieces_do_not_matter(words: list[str], data: st.DataObject) -> None:
    output = "".join(words).encode()
    cut = data.draw(st.integers(0, len(output)))
    whole, pieces = Lines(), Lines()
    expected = whole.feed(output) + whole.end()
    assert pieces.feed(output[:cut]) + pieces.feed(output[cut:]) + pieces.end() == expected


def test_a_bar_that_never_ends_is_not_kept() -> None:
    lines = Lines()
    for percent in range(10_000):
        assert lines.feed(f"\r{percent:5d}".encode()) == []
    assert lines.end() == [" 9999"]


@pytest.mark.parametrize(
    ("text", "line"),
    [("", ""), ("a\nb\n\n", "b"), ("a\n 1%\r 7%", "7%"), ("a\n\x1b[0m\n", "a"), ("cut\ufffd\nend", "end")],
)
def test_last_state(text: str, line: str) -> None:
    assert last_state(text) == line
