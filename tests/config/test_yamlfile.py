"""YAML as people mean it: scalars by YAML 1.2, a line for every key and every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.config.yamlfile import parse, read
from cloudtrain.errors import ConfigError
from tests.config.files import problems
from tests.config.files import read as config_of


def test_what_yaml_1_1_would_misread_is_kept_as_it_was_written(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        "name: on\nenvironment: {python: 3.10}\ntrain: {args: {cos_lr: true, name: no, lr0: 1e-3}}\n",
    )
    assert config.name == "on"
    assert config.environment.python == "3.10"
    assert config.train.args == {"cos_lr": True, "name": "no", "lr0": 0.001}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-12", -12),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-02", "2024-01-02"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("", None),
        ("=", "="),
        ("'1'", "1"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"a: {text}\n", "f").values["a"]
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    document = parse("a:\n  b: 1\n  c:\n  - x\n  - {d: 2}\n", "f")
    assert document.line(("a", "b")) == 2
    assert document.line(("a", "c", 1, "d")) == 5
    assert document.line(("a", "nothing", "here")) == 1
    assert document.texts["a", "c", 0] == "x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n\tkind: yolo\n", "2: not YAML: a tab where only spaces can indent"),
        (
            "a: b\n  c: d\n",
            "2: not YAML: a `:` that cannot stand here: indent, or put the value in quotes",
        ),
        ("name: a\nregion\nlease: {}\n", "3: not YAML: a key without `:` after it"),
        ("a:\n  - b\n c: d\n", "3: not YAML: the indentation does not match the lines above"),
        ("name: 'a\nlease: {}\n", "1: not YAML: a quote that is never closed"),
        ("name: a\n---\nname: b\n", "2: not YAML: a second document after `---`: there can be only one"),
        ("name: *a\n", "1: not YAML: an alias `*…` without its anchor `&…`"),
        ("- a\n", "1: must be a mapping: `key: value` lines"),
        ("just words\n", "1: must be a mapping: `key: value` lines"),
        ("name: a\nname: b\n", "2: `name` is given twice, first in line 1"),
        ("train: {args: {a: 1, a: 2}}\n", "1: `a` is given twice, first in line 1"),
        ("hosts: &h [*h]\n", "1: an alias that contains itself"),
        ("? [a]\n: b\n", "1: a key must be a plain word"),
        ("name: !include x\n", "1: not understood: could not determine a constructor for the tag '!include'"),
        ("name: a\x00\n", "1: not YAML: unacceptable character #x0000: special characters are not allowed"),
    ],
)
def test_what_is_not_yaml_is_said_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text)[0] == f"cloudtrain.yaml:{expected}"


def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="nested too deep"):
        parse("a: " + "[" * 500, "f")


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\nregion: b\r\n")
    document = read(path)
    assert document.values == {"name": "a", "region": "b"}
    assert document.line(("region",)) == 2
