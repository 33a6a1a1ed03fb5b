"""Configuration files: what a message tells the person who wrote the file."""

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from zoo.config import ConfigError, StrictModel, read_config


class Task(StrictModel):
    name: Literal["digits", "images"]
    size: int = Field(10, ge=1)


class Config(StrictModel):
    task: Task
    count: int
    rates: list[float] = Field(default_factory=list)
    table: dict[str, Task] = Field(default_factory=dict)

    @field_validator("count")
    @classmethod
    def _even(cls, count: int) -> int:
        if count % 2:
            raise ValueError(f"expected an even number, found {count}")
        return count


GOOD = """\
# a comment
task:
  name: digits
  size: 3
count: 4
rates:
  - 0.5
  - 1
table:
  first: {name: images}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        read_config(Config, path, overrides)
    return str(error.value)


def test_a_good_file_is_read(write):
    config = read_config(Config, write(GOOD))
    assert config == Config(
        task=Task(name="digits", size=3),
        count=4,
        rates=[0.5, 1.0],
        table={"first": Task(name="images", size=10)},
    )


@pytest.mark.parametrize("number", ["1e-3", "1.e-3", "1E-3", "+1e-3", "1.0e-3", "0.001", ".001"])
def test_numbers_with_an_exponent_are_numbers(write, number):
    path = write(GOOD.replace("- 0.5", f"- {number}"))
    assert read_config(Config, path).rates == [0.001, 1.0]
    assert read_config(Config, path, [f"rates=[{number}]"]).rates == [0.001]


def test_a_config_cannot_be_changed(write):
    config = read_config(Config, write(GOOD))
    with pytest.raises(ValidationError, match="frozen"):
        config.count = 6


def test_a_config_error_is_a_value_error(write):
    assert issubclass(ConfigError, ValueError)


# file, line, key, expected, found


@pytest.mark.parametrize(
    ("old", "new", "line", "parts"),
    [
        ("size: 3", "size: 0", 4, ["task.size", "greater than or equal to 1", "found 0"]),
        ("size: 3", "size: many", 4, ["task.size", "valid integer", "found 'many'"]),
        ("name: digits", "name: faces", 3, ["task.name", "'digits' or 'images'", "found 'faces'"]),
        ("size: 3", "sise: 3", 4, ["unknown key 'task.sise'", "found 3"]),
        ("count: 4", "count: 5", 5, ["count", "expected an even number, found 5"]),
        ("  - 1\n", "  - fast\n", 8, ["rates.1", "valid number", "found 'fast'"]),
        (
            "first: {name: images}",
            "first: {name: images, size: -1}",
            10,
            ["table.first.size", "found -1"],
        ),
        ("  name: digits\n", "", 2, ["key 'task.name' is missing"]),
        ("rates:\n  - 0.5\n  - 1\n", "rates: 3\n", 6, ["rates", "valid list", "found 3"]),
    ],
)
def test_an_error_names_file_line_key_and_what_was_found(write, old, new, line, parts):
    assert GOOD.count(old) == 1
    path = write(GOOD.replace(old, new))
    text = message(path)
    assert text.startswith(f"{path}:{line}: ")
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_a_missing_key_at_the_top_names_the_file(write):
    path = write("task: {name: digits}\n")
    assert message(path) == f"{path}: key 'count' is missing"


def test_all_errors_are_told_at_once_one_line_each(write):
    path = write(
        GOOD.replace("size: 3", "size: 0").replace("count: 4", "count: 5") + "colour: red\n"
    )
    lines = message(path).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:4", f"{path}:5", f"{path}:11"]


# what is not a mapping of keys


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", "NoneType"), ("- 1\n- 2\n", "list"), ("just text", "str"), ("3", "int")],
)
def test_a_file_that_is_not_a_mapping(write, text, kind):
    path = write(text)
    assert message(path) == f"{path}: expected a mapping of keys at the top, found {kind}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("count: [1, 2\ntask: 3", "line 2"),
        ("count: 1\n\ttask: 3", "line 2"),
        ("a: 1\n---\nb: 2\n", "found another document"),
        ("count: !!python/object/apply:os.getcwd []", "python/object/apply:os.getcwd"),
        ("? [1, 2]\n: 3\n", "unhashable key"),
        ("count: 2020-99-99\n", "month must be in 1..12"),
        ("a: &a [1]\nb: *a\n", "line 2: an alias"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n", "line 3: an alias"),
        ("a: &a [*a]\n", "line 1: an alias"),
        (f"a: {3000 * '['}{3000 * ']'}\n", "deeper than 50 levels"),
        ("a:\n" + "".join(f"{i * ' '}- \n" for i in range(1, 60)), "deeper than 50 levels"),
        (f"a: {3000 * '{a: '}{3000 * '}'}\n", "deeper than 50 levels"),
    ],
)
def test_a_file_that_is_not_plain_yaml(write, text, part):
    path = write(text)
    error = message(path)
    assert error.startswith(f"{path}: not valid YAML: ")
    assert part in error


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        (GOOD + "count: 6\n", 11, "count", 5),
        (GOOD.replace("  size: 3\n", "  size: 3\n  name: images\n"), 5, "name", 3),
        (GOOD.replace("{name: images}", "{name: images, size: 1, size: 2}"), 10, "size", 10),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(write, text, line, key, first):
    path = write(text)
    assert message(path) == f"{path}:{line}: key {key!r} stands twice (first: line {first})"


def test_the_same_key_in_two_mappings_is_no_duplicate(write):
    text = GOOD.replace(
        "  first: {name: images}", "  first: {name: images}\n  second: {name: images}"
    )
    assert len(read_config(Config, write(text)).table) == 2


def test_a_file_that_cannot_be_read(tmp_path):
    missing, binary = tmp_path / "missing.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00count")
    for path, part in (
        (missing, "No such file"),
        (binary, "codec can't decode"),
    ):
        text = message(path)
        assert text.startswith(f"{path}: cannot be read: ")
        assert part in text


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "long"])
def test_what_is_no_file_of_bounded_length_is_not_read(tmp_path, kind):
    path = tmp_path / "config.yaml"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "long": lambda: path.write_text("# " + 2**20 * "x"),
    }[kind]()
    assert message(path) == f"{path}: expected a file of at most 1048576 bytes"


# --set key=value


def test_overrides_replace_add_and_nest(write):
    config = read_config(
        Config,
        write(GOOD),
        [
            "count=8",
            "task.name=images",
            "rates=[2.5]",
            "table.second={name: digits}",
            "table.third.name=images",
        ],
    )
    assert (config.count, config.task, config.rates) == (8, Task(name="images", size=3), [2.5])
    assert config.table == {
        "first": Task(name="images"),
        "second": Task(name="digits"),
        "third": Task(name="images"),
    }


def test_the_last_override_of_a_key_wins(write):
    assert read_config(Config, write(GOOD), ["count=8", "count=10"]).count == 10


def test_an_override_may_hold_an_equals_sign(write):
    assert "found 'a=b'" in message(write(GOOD), "task.name=a=b")


@pytest.mark.parametrize("override", ["count", "=3", "", "count 3"])
def test_an_override_that_is_not_key_and_value(write, override):
    assert (
        message(write(GOOD), override)
        == f"--set {override}: expected key=value, for example --set count=100"
    )


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("count.deep=3", "'count' is not a mapping, it holds 4"),
        ("task.name.deep=3", "'name' is not a mapping, it holds 'digits'"),
        ("rates.0=3", "'rates' is not a mapping, it holds [0.5, 1]"),
        ("count=[1", "the value is not valid YAML"),
        ("count=2020-99-99", "the value is not valid YAML: month must be in 1..12"),
    ],
)
def test_an_override_that_cannot_be_applied(write, override, part):
    assert message(write(GOOD), override).startswith(f"--set {override}: {part}")


@pytest.mark.parametrize(
    ("override", "rest"),
    [
        ("colour=red", "unknown key 'colour', found 'red'"),
        ("task.colour=red", "unknown key 'task.colour', found 'red'"),
        ("count=7", "count: expected an even number, found 7"),
        ("count=", "count: Input should be a valid integer, found None"),
        ("task={name: faces}", "task.name: Input should be 'digits' or 'images', found 'faces'"),
    ],
)
def test_an_error_that_an_override_made_names_the_override_and_not_a_line(write, override, rest):
    assert message(write(GOOD), override) == f"--set {override}: {rest}"


def test_an_error_beside_an_override_still_names_its_line(write):
    path = write(GOOD.replace("size: 3", "size: 0"))
    assert message(path, "task.name=images").startswith(f"{path}:4: task.size")
