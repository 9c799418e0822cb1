"""The page about spot names a source and an existing test for each behaviour."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_row_has_a_source_and_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "concepts" / "sandbox-spot.md").read_text()
    links = dict(re.findall(r"^\[([\w ]+)\]: (https://docs\.aws\.amazon\.com/\S+)$", text, re.MULTILINE))
    tests = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for behaviour, source, named in rows:
        assert set(re.findall(r"\[([\w ]+)\]", source)) & set(links), behaviour
        assert set(re.findall(r"`(test_\w+)`", named)), behaviour
    assert set(re.findall(r"`(test_\w+)`", text)) <= tests
