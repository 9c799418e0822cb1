"""What the machine fetches: odd names of objects, and files that change on their server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.models.lent import Lent
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.unpack import fetch_objects
from tests.transfer.conftest import Seen
from tests.transfer.test_push import contents


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_names_of_objects_are_no_options(
    line: Remote, layout: Layout, base: Path, seen: Seen, web: str
) -> None:
    """A bucket may hold any name: none of them says anything to curl."""
    (base / "web" / "one").write_text("one")
    traced = Path(layout.root).parent / "traced"
    names = [
        f"x\ntrace-ascii = {traced}\n#",
        f'y"\ntrace-ascii = "{traced}"\n#',
        f"z\\\ntrace-ascii = {traced}",
        "folder\n/line\nend",
        "return\rtab\tback\\slash\\n\v",
        "-",
        "-o/-x",
        "#1",
        " ",
    ]
    empty = ["none\n/of\n", "-e/-", "-d"]
    lent = [Lent(name, 3, f"{web}/one", "v") for name in names]
    lent += [Lent(name, 0, f"{web}/one", "v") for name in empty]
    fetch_objects(line, layout, seen, tuple(lent))
    wanted = dict.fromkeys(names, b"one") | dict.fromkeys(empty, b"")
    assert contents(Path(layout.data)) == {str(Path(name)): content for name, content in wanted.items()}
    assert not traced.exists()
