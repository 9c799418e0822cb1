"""The schema and the reference say what `load` does."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from cloudtrain.config import schema
from cloudtrain.config.given import keys
from cloudtrain.config.reference import config_page, pages
from tests.config.files import read

ROOT = Path(__file__).parents[2]
GOOD = """\
name: helmets
provider: aws
region: us-east-1
instance: {type: g4dn.xlarge, market: spot-then-on-demand, volume_gb: 60, image: auto}
environment: {manager: conda, python: 3.12, requirements: requirements.txt}
runtime: host
project: {path: ., exclude: [runs/, "*.zip"]}
dataset: data.yaml
train: {kind: yolo, model: yolo11n.pt, args: {epochs: 100, cos_lr: true}, outputs: "**/*.pt"}
lease: {hours: 8, cost: 5.00, idle_minutes: 30, after_training: stop}
mirrors:
hosts: [gpu.example.org, {address: b.example.org, port: 2222, user: me}]
"""


def test_the_schema_accepts_what_load_accepts(tmp_path: Path) -> None:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    read(tmp_path, GOOD)
    jsonschema.validate(yaml.safe_load(GOOD), made)
    example = ROOT / "examples" / "digits" / "cloudtrain.yaml"
    jsonschema.validate(yaml.safe_load(example.read_text()), made)


@pytest.mark.parametrize(
    "bad",
    [
        {"provder": "aws"},
        {"instance": {"market": "spott"}},
        {"instance": {"volume_gb": 10}},
        {"lease": {"hours": 0}},
        {"hosts": [{"port": 3}]},
        {"train": {"args": {"a": [1]}}},
    ],
)
def test_the_schema_refuses_what_load_refuses(bad: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema())


def test_every_key_has_a_meaning() -> None:
    made = schema()
    for section in (made, *made["$defs"].values()):
        for name, found in section["properties"].items():
            assert found.get("description"), name


def test_the_reference_names_every_key_and_its_variable() -> None:
    page = config_page()
    for key, variable, _ in keys():
        shown = (f"`{key.rsplit('.', 1)[-1]}`", f"`{variable}`") if key != "hosts" else ("## hosts",)
        assert all(text in page for text in shown), key


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_generated_files_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == pages()[name]
