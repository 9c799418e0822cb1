"""cloudtrain.yaml: every mistake at once, with its line and the way out."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.config import dump, find, from_dict, load, propose, schema
from cloudtrain.config.load import keys, slug
from cloudtrain.errors import ConfigError
from cloudtrain.models.config import Config, Dataset, Host, Instance, Lease, Train


def write(folder: Path, text: str) -> Path:
    path = folder / "cloudtrain.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, **overrides: object) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, overrides={key.replace("__", "."): value for key, value in overrides.items()}, environ={})
    return [str(problem).replace(str(path), "cloudtrain.yaml") for problem in caught.value.problems]


def read(folder: Path, text: str) -> Config:
    return load(write(folder, text), environ={})


def test_an_empty_file_is_all_defaults_and_the_folders_name(tmp_path: Path) -> None:
    folder = tmp_path / "My Helmets_2"
    folder.mkdir()
    config = read(folder, "")
    assert config == Config(name="my-helmets-2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provder: aws\n", "cloudtrain.yaml:1: unknown key `provder`; did you mean `provider`?"),
        ("\ninstance:\n  typ: x\n", "cloudtrain.yaml:3: unknown key `instance.typ`; did you mean `type`?"),
        ("instance: {market: spott}\n", "did you mean `spot`?"),
        (
            "instance: {volume_gb: 10}\n",
            "`instance.volume_gb` should be greater than or equal to 20, not `10`",
        ),
        ("lease:\n  hours: many\n", "cloudtrain.yaml:2: `lease.hours`"),
        ("lease: {hours: 0}\n", "`lease.hours` should be greater than 0"),
        ("name: a\nname: b\n", "cloudtrain.yaml:2: `name` is given twice, first in line 1"),
        ("name: Bad Name\n", "cloudtrain.yaml:1: `name` must be lower-case letters"),
        ("train: {kind: script}\n", "cloudtrain.yaml:1: `train.kind` script needs a `train.command`"),
        ("provider: ssh\n", "`provider` ssh needs `hosts:`"),
        ("dataset: {path: a, source: s3://b}\n", "both `path` and `source`"),
        ("train:\n- a\n", "cloudtrain.yaml:1: `train` must be a mapping"),
        ("a: [\n", "not YAML"),
        ("train:\n\tkind: yolo\n", "cloudtrain.yaml:2: not YAML"),
        ("- a\n", "must be a mapping"),
        ("hosts: [{address: a, prt: 3}]\n", "unknown key `hosts.0.prt`; did you mean `port`?"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_a_suggestion(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert any(expected in line for line in found), found


def test_all_mistakes_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    found = problems(tmp_path, "provder: aws\ninstance: {typ: x, volume_gb: 1}\nlease: {hours: x}\n")
    assert [line.split(":")[1] for line in found] == ["1", "2", "2", "3"]


def test_what_yaml_would_misread_is_kept_as_it_was_written(tmp_path: Path) -> None:
    config = read(
        tmp_path, "name: on\nenvironment: {python: 3.10}\ntrain: {args: {cos_lr: true, name: no}}\n"
    )
    assert config.name == "on"
    assert config.environment.python == "3.10"
    assert config.train.args == {"cos_lr": True, "name": "no"}


def test_short_forms_mean_the_one_thing_they_can(tmp_path: Path) -> None:
    config = read(tmp_path, "dataset: data.yaml\nproject: code\ninstance: {type: g5.xlarge}\nlease:\n")
    assert config.dataset == Dataset(path="data.yaml")
    assert config.project.path == "code"
    assert config.instance.type == ("g5.xlarge",)
    assert config.lease == Lease()


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "region: a\nlease: {hours: 1}\ninstance: {market: spot}\n")
    config = load(
        path,
        overrides={"lease.hours": 3.0, "region": None},
        environ={"CLOUDTRAIN_LEASE_HOURS": "2", "CLOUDTRAIN_REGION": "b", "CLOUDTRAIN_INSTANCE_TYPE": "x, y"},
    )
    assert (config.region, config.lease.hours, config.instance.type) == ("b", 3.0, ("x", "y"))
    assert config.instance.market == "spot"


def test_a_bad_flag_or_variable_is_named_instead_of_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    with pytest.raises(ConfigError) as caught:
        load(path, overrides={"lease.cost": -1}, environ={"CLOUDTRAIN_LEASE_HOURS": "x"})
    text = caught.value.message
    assert "CLOUDTRAIN_LEASE_HOURS: `lease.hours`" in text
    assert "flag for `lease.cost`: `lease.cost`" in text


def test_the_file_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = write(tmp_path, "")
    assert find(tmp_path / "a" / "b") == path


@given(
    st.builds(
        Config,
        name=st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
        instance=st.builds(
            Instance,
            type=st.lists(st.text(), min_size=1).map(tuple),
            volume_gb=st.none() | st.integers(20, 99),
        ),
        train=st.builds(Train, args=st.dictionaries(st.text(), st.booleans() | st.integers() | st.text())),
        hosts=st.lists(st.builds(Host, address=st.text(min_size=1), port=st.integers(1, 65535))).map(tuple),
        lease=st.builds(Lease, hours=st.floats(0.1, 700), cost=st.none() | st.floats(0.1, 9)),
    )
)
def test_a_snapshot_comes_back_as_it_was(config: Config) -> None:
    assert from_dict(json.loads(json.dumps(dump(config)))) == config


def test_a_snapshot_of_another_version_loses_only_what_is_unknown() -> None:
    assert from_dict({"name": "a", "later": 1, "lease": {"hours": 2, "later": 3}}) == Config(
        name="a", lease=Lease(hours=2)
    )


@pytest.mark.parametrize(
    ("files", "kind", "mentions"),
    [
        ({}, "yolo", "data.yaml"),
        ({"data.yaml": "train: a\nval: b\nnames: [x]\n"}, "yolo", 'path: "data.yaml"'),
        ({"data/coco.yaml": "train: a\nval: b\nnc: 3\n"}, "yolo", 'path: "data/coco.yaml"'),
        ({"train.py": "print()", "requirements.txt": ""}, "script", "command: python train.py"),
        (
            {"train.py": "", "models/yolo.py": "", "data.yaml": "train: a\nval: b\nnc: 1\n"},
            "yolov5",
            "yolov5s.pt",
        ),
        ({"main.py": ""}, "script", "command: python main.py"),
    ],
)
def test_a_proposal_sees_the_folder_and_loads_as_it_is(
    tmp_path: Path, files: dict[str, str], kind: str, mentions: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    text = propose(tmp_path)
    config = read(tmp_path, text)
    assert config.train.kind == kind
    assert mentions in text
    assert config.environment.requirements == ("requirements.txt" if "requirements.txt" in files else None)


def test_the_schema_accepts_what_load_accepts(tmp_path: Path) -> None:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    good = {
        "name": "a",
        "dataset": "data.yaml",
        "instance": {"type": "g5.xlarge"},
        "environment": {"python": 3.12},
    }
    jsonschema.validate(good, made)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"provder": "aws"}, made)
    assert made["properties"]["lease"]["description"] or made["$defs"]["Lease"]["description"]


def test_every_key_can_be_a_variable_and_none_meets_another() -> None:
    names = ["CLOUDTRAIN_" + key.upper().replace(".", "_") for key, _ in keys()]
    assert len(names) == len(set(names))
    assert "CLOUDTRAIN_INSTANCE_TYPE" in names


@pytest.mark.parametrize(("text", "expected"), [("A b", "a-b"), ("___", "training"), ("x" * 60, "x" * 40)])
def test_a_folder_names_a_run(text: str, expected: str) -> None:
    assert slug(text) == expected
