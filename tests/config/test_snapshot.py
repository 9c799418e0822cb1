"""A snapshot comes back as it was, whoever wrote it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.config import dump, from_dict
from cloudtrain.models.config import Config, Environment, Host, Instance, Lease, Train

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ARGS: Any = st.dictionaries(st.text(), st.booleans() | st.integers() | NUMBERS | st.text(), max_size=4)
WORDS: Any = st.lists(st.text(), max_size=3).map(tuple)


@given(
    st.builds(
        Config,
        name=st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
        region=st.none() | st.text(),
        instance=st.builds(Instance, type=WORDS, volume_gb=st.none() | st.integers(20, 99)),
        environment=st.builds(Environment, packages=WORDS, requirements=st.none() | st.text()),
        train=st.builds(Train, args=ARGS, kind=st.sampled_from(["yolo", "yolov5", "script"])),
        hosts=st.lists(
            st.builds(Host, address=st.text(min_size=1), port=st.integers(1, 65535)), max_size=3
        ).map(tuple),
        lease=st.builds(
            Lease, hours=st.floats(0.1, 700), cost=st.none() | st.floats(0.1, 9), idle_minutes=st.none()
        ),
    )
)
def test_a_snapshot_comes_back_as_it_was(config: Config) -> None:
    assert from_dict(json.loads(json.dumps(dump(config)))) == config


def test_a_snapshot_of_another_version_loses_only_what_is_unknown() -> None:
    data = {"name": "a", "later": 1, "lease": {"hours": 2, "later": 3}}
    assert from_dict(data) == Config(name="a", lease=Lease(hours=2))
