"""Configurations take numbers for numbers only, and errors have the line of their own key."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from data_gen.config import Job, SplitConfig, load_job
from data_gen.sampling import Distribution
from studies.registry import STUDIES
from zoo.config import ConfigError

TEXT = """\
task: {name: digits, train_size: 40,
  augment: {shift: 1}}
count: 8
hyperparameters:
  optimizer: sgd
  lr: 0.1
  steps: 2
populations:
  standard:
    architecture:
      name: mlp
      hidden: [6]
    asymmetry:
      kind: w
      kappa: 1.0
"""


@pytest.fixture
def message(tmp_path):
    """What is said of the job with one piece of its text, or one override, changed."""

    def refused(old: str, new: str, *overrides: str) -> str:
        assert old in TEXT
        (tmp_path / "job.yaml").write_text(TEXT.replace(old, new))
        with pytest.raises(ConfigError) as error:
            load_job(str(tmp_path / "job.yaml"), overrides)
        return str(error.value).removeprefix(f"{tmp_path}/")

    return refused


WRONG_KINDS = {
    "count": ["yes", "'3'", "2.5", ".inf", "[1]", "1e30", str(2**70)],
    "seed": ["yes", "'3'", "0.5", str(2**70)],
    "task.seed": ["no", "'3'", str(2**63)],
    "task.train_size": ["yes", "'40'", "1e18.5"],
    "task.grey": ["1", "'yes'", "0.0"],
    "task.augment.flip": ["1", "'true'"],
    "task.augment.shift": ["yes", "'2'"],
    "split.train": ["yes", "'0.5'", ".nan"],
    "shard_size": ["yes", str(2**70)],
    "checkpoints": ["no", "'2'"],
    "checkpoint_metrics": ["1", "'on'"],
    "hyperparameters.lr": ["yes", "'0.1'", str(2**70), "{uniform: [no, 1]}", "{choice: [yes]}"],
    "hyperparameters.steps": ["yes", "'3'", str(2**70), "{int_range: [no, 3]}", "{choice: ['3']}"],
    "populations.standard.architecture.hidden": ["yes", "[yes]", f"[{2**70}]"],
    "populations.standard.asymmetry.kappa": ["yes", "'1'", str(2**70)],
}


@pytest.mark.parametrize("key", WRONG_KINDS)
def test_numbers_of_the_wrong_kind_are_refused(message, key):
    for value in WRONG_KINDS[key]:
        said = message("", "", f"{key}={value}")
        assert said.startswith(f"--set {key}={value}: "), said
        assert key in said


def test_a_whole_number_may_be_a_float_and_a_number_may_be_whole(tmp_path):
    (tmp_path / "job.yaml").write_text(TEXT)
    overrides = ["count=1e1", "task.train_size=4e1", "split={train: 1, validation: 0, test: 0}"]
    job = load_job(str(tmp_path / "job.yaml"), overrides)
    assert (job.count, job.task.train_size, job.split.train) == (10, 40, 1.0)
    assert type(job.count) is int
    assert type(job.split.train) is float


def lax(schema: Any) -> Iterator[Any]:
    """Parts of a schema that take other values for numbers."""
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool") and not schema.get("strict"):
            yield schema
        parts = schema.items()
        schema = [part for key, part in parts if key not in ("metadata", "default")]
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from lax(part)


VALUE_OF_ANY_KIND = 6
"""`Distribution.fixed` and `choice` hold bool, int and float; each hyperparameter checks them."""


@pytest.mark.parametrize("name", ["job", *STUDIES])
def test_all_numbers_of_all_configurations_are_strict(name):
    config = Job if name == "job" else STUDIES[name].load().config
    distributions = [*lax(Distribution.__pydantic_core_schema__)]
    assert len(distributions) == VALUE_OF_ANY_KIND
    assert [
        part for part in lax(config.__pydantic_core_schema__) if part not in distributions
    ] == []


LINES = {
    "hyperparameter out of range": ("lr: 0.1", "lr: -1", "job.yaml:6: hyperparameters.lr: "),
    "hyperparameter of no kind": ("steps: 2", "steps: yes", "job.yaml:7: hyperparameters.steps: "),
    "unknown hyperparameter": ("steps: 2", "step: 2", "job.yaml:7: hyperparameters.step: unknown"),
    "option of a task": (
        "augment: {shift: 1}",
        "grey: yes",
        "job.yaml:2: task.grey: not an option of the task 'digits'",
    ),
    "architecture": ("mlp", "mlq", "job.yaml:11: populations.standard.architecture.name: unknown"),
    "option of an architecture": ("[6]", "[a]", "job.yaml:12: populations.standard.archi"),
    "unknown option": ("hidden", "hid", "job.yaml:12: populations.standard.architecture.hid: unk"),
    "asymmetry": ("kind: w", "kind: v", "job.yaml:14: populations.standard.asymmetry.kind: unk"),
    "option of an asymmetry": ("1.0", "1e39", "job.yaml:15: populations.standard.asymmetry.kappa"),
    "name of a population": ("standard:", "Standard:", "job.yaml:9: populations.Standard: popul"),
    "long name": ("standard:", f"{'a' * 250}:", f"job.yaml:9: populations.{'a' * 250}: population"),
}


@pytest.mark.parametrize(("old", "new", "start"), LINES.values(), ids=LINES)
def test_an_error_has_the_line_of_its_own_key(message, old, new, start):
    assert message(old, new).startswith(start)


def test_an_error_of_an_entry_that_an_override_made_names_the_override(message):
    said = message("", "", "hyperparameters.lr=-1")
    assert said.startswith("--set hyperparameters.lr=-1: hyperparameters.lr: ")


def test_names_of_populations_leave_room_for_the_names_of_files():
    names = {"a" * 100: True, "a" * 101: False}
    for name, allowed in names.items():
        population = {"architecture": {"name": "mlp"}}
        job = {
            "task": {},
            "populations": {name: population},
            "hyperparameters": {"steps": 1},
            "count": 1,
        }
        if allowed:
            Job.model_validate(job)
            continue
        with pytest.raises(ValidationError, match=r"up to 100 lower-case letters"):
            Job.model_validate(job)


@pytest.mark.parametrize(
    ("split", "count", "counts"),
    [
        ({}, 1, (1, 0, 0)),
        ({}, 2, (1, 0, 1)),
        ({}, 3, (2, 1, 0)),
        ({"train": 0.01, "validation": 0.01, "test": 0.98}, 10, (1, 0, 9)),
        ({"train": 0.1, "validation": 0.9, "test": 0}, 1, (1, 0, 0)),
        ({}, 8, (4, 2, 2)),
    ],
)
def test_there_is_always_a_training_network(split, count, counts):
    assert tuple(SplitConfig(**split).counts(count).values()) == counts
