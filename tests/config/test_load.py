"""cloudtrain.yaml: every mistake at once, with its line and the way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloudtrain.config import defaults, find, load
from cloudtrain.config.given import keys
from cloudtrain.config.load import slug
from cloudtrain.errors import ConfigError
from cloudtrain.models.config import Config, Dataset, Host, Lease
from tests.config.files import problems, read, write

SCRIPT = "train: {kind: script, command: python t.py"


def test_an_empty_file_is_all_defaults_and_the_folders_name(tmp_path: Path) -> None:
    folder = tmp_path / "My Helmets_2"
    folder.mkdir()
    assert read(folder, "") == Config(name="my-helmets-2")
    assert defaults(folder, environ={}) == Config(name="my-helmets-2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provder: aws", "1: unknown key `provder`; did you mean `provider`?"),
        ("\ninstance:\n  typ: x", "3: unknown key `instance.typ`; did you mean `type`?"),
        ("instance: {mrket: spot}", "1: unknown key `instance.mrket`; did you mean `market`?"),
        ("market: spot", "1: unknown key `market`; did you mean `instance.market`?"),
        ("hosts: [{address: a, prt: 3}]", "1: unknown key `hosts[0].prt`; did you mean `port`?"),
        (
            "train:\n  epochs: 3",
            "2: unknown key `train.epochs`; an argument of the trainer belongs under `train.args`: `args: {epochs: …}`",
        ),
        (
            "lease: {zzz: 1}",
            "1: unknown key `lease.zzz`; known: hours, cost, idle_minutes, after_training, notify",
        ),
        (
            "instance: {market: spott}",
            "1: `instance.market` must be one of `on-demand`, `spot`, `spot-then-on-demand`, not `spott`; did you mean `spot`?",
        ),
        ("provider: 3", "1: `provider` must be one of `aws`, `ssh`, `sandbox`, not `3`"),
        ("instance: {volume_gb: 10}", "1: `instance.volume_gb` must be 20 or more, not `10`"),
        ("instance: {volume_gb: 60.5}", "1: `instance.volume_gb` must be a whole number, not `60.5`"),
        ("instance: {volume_gb: big}", "1: `instance.volume_gb` must be a whole number, not `big`"),
        ("lease:\n  hours: many", "2: `lease.hours` must be a number, not `many`"),
        ("lease: {hours: 0}", "1: `lease.hours` must be more than 0, not `0`"),
        ("lease: {hours: 1000}", "1: `lease.hours` must be 720 or less, not `1000`"),
        ("lease: {hours: true}", "1: `lease.hours` must be a number, not `true`"),
        ("lease: {cost: .inf}", "1: `lease.cost` must be a number that ends, not `inf`"),
        ("lease: {hours: 1:30}", "1: `lease.hours` must be a number, not `1:30`"),
        ("train:\n- a", "1: `train` must be a mapping: `key: value` lines below it"),
        ("instance: {type: {a: b}}", "1: `instance.type[0]` must be text, not a mapping"),
        ("name: [a]", "1: `name` must be text, not a list"),
        ("hosts: [{port: 3}]", "1: `hosts[0].address` is missing"),
        ("hosts:\n- address: a\n- address: ''", "3: `hosts[1].address` must not be empty"),
        (
            "train:\n  args:\n    device: [0, 1]",
            '3: `train.args.device` must be text, a number, true or false, not a list; write a list or nothing as text: "[0, 1]" or "None"',
        ),
        (
            "name: Bad Name",
            "1: `name` must be lower-case letters, digits and dashes, 40 at most, not `Bad Name`",
        ),
        ("region: us-east-1a", "1: `region` `us-east-1a` is a zone; its region is `us-east-1`"),
        (
            "region: us-esat-1",
            "1: `region` `us-esat-1` has no direction that AWS uses, but `esat`; did you mean `east`?",
        ),
        ("region: virginia", "1: `region` must be like `us-east-1`, not `virginia`"),
        ("instance: {type: g4dn}", "1: `instance.type` must be like `g4dn.xlarge`, not `g4dn`"),
        ("instance: {type: []}", "1: `instance.type` must name at least one type"),
        (
            "instance: {image: ubuntu-24.4}",
            "1: `instance.image` must be one of auto, ubuntu-24.04, ubuntu-22.04, dlami or an id, `ami-…`, not `ubuntu-24.4`; did you mean `ubuntu-24.04`?",
        ),
        (
            "instance: {image: ami-12}",
            "1: `instance.image` `ami-12` is no image id: `ami-` and 8 to 17 hex digits",
        ),
        ("instance: {subnet: vpc-1}", "1: `instance.subnet` must be an id, `subnet-…`, not `vpc-1`"),
        (
            "environment: {python: /usr/bin/python3}",
            '1: `environment.python` must be a version such as "3.12", not `/usr/bin/python3`; a path is for `manager: existing`',
        ),
        (
            "environment: {torch: newest}",
            "1: `environment.torch` must be auto, none or a version such as 2.8.0, not `newest`",
        ),
        (
            "environment: {packages: [a, '-i x']}",
            "1: `environment.packages[1]` must be a package, not an option; an index goes under `mirrors`: `-i x`",
        ),
        ("project: {ref: main}", "1: `project.ref` needs `project.git`"),
        ("project: {git: https://x/y, path: z}", "1: `project` has both `path` and `git`: give one"),
        ("dataset:\n  path: a\n  source: s3://b", "3: `dataset` has both `path` and `source`: give one"),
        ("dataset: s3://b/c.zip", "1: `dataset.path` is an address: write `dataset: {source: …}`"),
        ("dataset: {source: ftp://x}", "1: `dataset.source` must be https://… or s3://…, not `ftp://x`"),
        (
            "dataset: {source: s3://x, sha256: abc}",
            "1: `dataset.sha256` must be 64 hex digits, not 3 characters",
        ),
        ("train: {kind: script}", "1: `train.kind` script needs a `train.command`"),
        (
            "train:\n  model: a\n  command: python t.py",
            "3: `train.command` is for `kind: script`, and the kind is yolo",
        ),
        (f"{SCRIPT}, outputs: []}}", "1: `train.outputs` is empty: nothing of the training would come home"),
        (
            f"{SCRIPT}, outputs: [a, ../b]}}",
            "1: `train.outputs[1]` must be a pattern inside the project folder, not `../b`",
        ),
        ("provider: ssh", "1: `provider` ssh needs `hosts:`, with an `address` each"),
        (
            "hosts: [me@box]",
            "1: `hosts[0].address` must be a name or an address alone: `user` and `port` are keys of their own",
        ),
        ("hosts: [a, b, a]", "1: `hosts[2]` is listed twice: `a` port 22"),
        (
            "hosts: [{address: a, fingerprint: 'MD5:1'}]",
            "1: `hosts[0].fingerprint` must be SHA256:… as `ssh-keygen -lf` prints it",
        ),
        (
            "access: {ingress: 1.2.3.4/32}",
            "1: `access.ingress` must be one IPv4 address such as 203.0.113.7, not `1.2.3.4/32`",
        ),
        ("mirrors:\n  apt: me:pw@x", "2: `mirrors.apt` must be an address: https://…"),
    ],
)
def test_one_mistake_is_one_message_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text + "\n") == [f"cloudtrain.yaml:{expected}"]


def test_all_mistakes_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = "provder: aws\ninstance: {typ: x, volume_gb: 1}\nlease: {hours: x}\nname: a\nname: B\ntrain: {kind: script}\n"
    found = problems(tmp_path, text)
    assert [line.split(":")[1] for line in found] == ["1", "2", "2", "3", "5", "5", "6"]


def test_a_mistake_brings_no_second_one_along(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "train: {kind: scrpt, command: x}\n")) == 1
    assert len(problems(tmp_path, "provider: ssh\nhsots: [a]\n")) == 1
    assert len(problems(tmp_path, "provider: ssh\nhosts: [{address: a, port: 0}]\n")) == 1


def test_short_forms_mean_the_one_thing_they_can(tmp_path: Path) -> None:
    text = (
        "dataset: data.yaml\nproject: 2024\ninstance: {type: g5.xlarge}\nlease:\nhosts: [a, {address: b}]\n"
    )
    config = read(tmp_path, text)
    assert config.dataset == Dataset(path="data.yaml")
    assert config.project.path == "2024"
    assert config.instance.type == ("g5.xlarge",)
    assert config.lease == Lease()
    assert config.hosts == (Host(address="a"), Host(address="b"))
    assert read(tmp_path, "hosts: {address: a}\n").hosts == (Host(address="a"),)
    assert read(tmp_path, "train: {args: , model: x.pt}\nproject: {exclude: runs/}\n").project.exclude == (
        "runs/",
    )


def test_nothing_written_is_the_default_but_where_nothing_is_a_value(tmp_path: Path) -> None:
    config = read(tmp_path, "name:\nlease: {after_training: , idle_minutes: null}\nmirrors:\nhosts:\n")
    assert (config.lease.after_training, config.lease.idle_minutes) == ("stop", None)
    assert config.name == slug(tmp_path.name)


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    text = "region: us-east-1\nlease: {hours: 1}\ninstance: {market: spot}\n"
    environ = {
        "CLOUDTRAIN_LEASE_HOURS": "2",
        "CLOUDTRAIN_REGION": "us-west-2",
        "CLOUDTRAIN_INSTANCE_TYPE": "g5.xlarge, g6.xlarge",
        "CLOUDTRAIN_LEASE_IDLE_MINUTES": "none",
        "CLOUDTRAIN_TRAIN_ARGS": "{epochs: 3, cache: ram}",
        "CLOUDTRAIN_HOSTS": "[gpu, {address: b, port: 3}]",
        "CLOUDTRAIN_NAME": "",
        "CLOUDTRAIN_ENVIRONMENT_PYTHON": "3.10",
    }
    flags = {"lease__hours": 3.0, "region": None, "train__args__batch": 8}
    config = read(tmp_path, text, environ, **flags)
    assert (config.region, config.lease.hours, config.instance.type) == (
        "us-west-2",
        3.0,
        ("g5.xlarge", "g6.xlarge"),
    )
    assert config.instance.market == "spot"
    assert config.lease.idle_minutes is None
    assert config.train.args == {"epochs": 3, "cache": "ram", "batch": 8}
    assert config.hosts == (Host(address="gpu"), Host(address="b", port=3))
    assert (config.name, config.environment.python) == (slug(tmp_path.name), "3.10")


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        (
            {"CLOUDTRAIN_LEASE_HOURS": "x"},
            {},
            "CLOUDTRAIN_LEASE_HOURS: `lease.hours` must be a number, not `x`",
        ),
        ({}, {"lease__cost": -1}, "flag for `lease.cost`: `lease.cost` must be more than 0, not `-1`"),
        (
            {"CLOUDTRAIN_LEASE_COST": "x"},
            {"lease__cost": -1},
            "flag for `lease.cost`: `lease.cost` must be more than 0, not `-1`",
        ),
        ({}, {"lease__csot": 1}, "flag for `lease.csot`: unknown key `lease.csot`"),
        (
            {"CLOUDTRAIN_INSTANCE_TYP": "x"},
            {},
            "CLOUDTRAIN_INSTANCE_TYP: no such variable; did you mean `CLOUDTRAIN_INSTANCE_TYPE`?",
        ),
        (
            {"CLOUDTRAIN_TRAIN_ARGS": "{a"},
            {},
            "CLOUDTRAIN_TRAIN_ARGS:1: not YAML: expected ',' or '}', but got '<stream end>'",
        ),
        (
            {"CLOUDTRAIN_PROVIDER": "ssh"},
            {},
            "CLOUDTRAIN_PROVIDER: `provider` ssh needs `hosts:`, with an `address` each",
        ),
    ],
)
def test_a_bad_flag_or_variable_is_named_instead_of_a_line(
    tmp_path: Path, environ: dict[str, str], flags: dict[str, object], expected: str
) -> None:
    assert problems(tmp_path, "", environ, **flags) == [expected]


def test_variables_that_are_no_keys_are_left_alone(tmp_path: Path) -> None:
    environ = {
        "CLOUDTRAIN_HOME": "/x",
        "CLOUDTRAIN_RUN": "a-1",
        "CLOUDTRAIN_SANDBOX_DELAYS": "idle=1",
        "CI": "1",
    }
    assert read(tmp_path, "name: a\n", environ) == Config(name="a")


def test_the_file_is_named_as_it_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "lease: {hours: 0}\n")
    monkeypatch.chdir(tmp_path)
    for given, shown in ((path, "cloudtrain.yaml"), (Path("cloudtrain.yaml"), "cloudtrain.yaml")):
        with pytest.raises(ConfigError) as caught:
            load(given, environ={})
        assert caught.value.problems[0].file == shown
    monkeypatch.chdir("/")
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert caught.value.problems[0].file == str(path)


def test_unknown_keys_are_answered_with_where_all_keys_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, "a: 1\n"), environ={})
    assert "cloudtrain config-schema" in caught.value.hint


def test_the_file_is_found_from_below_but_not_above_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "a" / "b").mkdir(parents=True)
    above = write(tmp_path, "")
    assert find(home / "a") == above
    monkeypatch.setenv("HOME", str(home))
    assert find(home / "a") is None
    inside = write(home / "a", "")
    assert find(home / "a" / "b") == inside


def test_every_key_can_be_a_variable_and_none_meets_another() -> None:
    names = [variable for _, variable, _ in keys()]
    assert len(names) == len(set(names))
    assert "CLOUDTRAIN_INSTANCE_TYPE" in names


@pytest.mark.parametrize(
    ("text", "expected"),
    [("A b", "a-b"), ("___", "training"), ("x" * 60, "x" * 40), ("x" * 39 + " y", "x" * 39)],
)
def test_a_folder_names_a_run(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_taking_up_a_snapshot_imports_neither_yaml_nor_pydantic() -> None:
    code = (
        "import sys; from cloudtrain.config import dump, from_dict; from_dict({'name': 'a'});"
        "sys.exit(bool({'yaml', 'pydantic', 'jinja2', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
