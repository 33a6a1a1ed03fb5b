"""`symzoo verify` finds what is wrong with a zoo, and mutated zoos do no harm."""

import json
import random
import re
import shutil
import sys

import numpy as np
import pytest

import zoo
from data_gen.config import Job
from data_gen.integrity.recompute import task_to_sample
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo
from tests.data_gen.integrity.damage import SHARD, TRAJECTORY, edit, flip, rewrite
from tests.fuzz_store import JOB, fuzz
from tests.repair_store import content


def test_a_whole_zoo_has_no_faults_and_what_was_checked_is_told(original):
    said = []
    assert verify_zoo(original, report=said.append) == []
    assert said == [
        "10 files of 2 populations: hashes, schema, ids, pairing, fixed entries, weight spaces, "
        "constants, HDF5",
        "metrics of 4 networks of each population computed again",
    ]


def at(index, value):
    def change(columns):
        name, *rows = index
        columns[name][tuple(rows)] = value

    return change


CHANGES = {
    "parameter not finite": (
        at(("layers.0.bias", 0, 0), np.inf),
        SHARD,
        "'layers.0.bias' has parameters that are not finite",
    ),
    "fixed entry": (
        lambda c: c["layers.0.weight"].__iadd__(1),
        SHARD,
        "has fixed entries that are not those of the constants",
    ),
    "sign of a zero": (None, SHARD, "has fixed entries that are not those of the constants"),
    "metric": (
        at(("test_loss", 1), np.nan),
        SHARD,
        "'test_loss' has values that are not finite, or not from 0 to inf",
    ),
    "accuracy": (at(("test_accuracy", 1), 1.5), SHARD, "'test_accuracy' has values"),
    "diverged": (
        at(("diverged_at", 1), 1),
        SHARD,
        "'diverged' and 'diverged_at' contradict each other",
    ),
    "pairing": (at(("lr", 2), 0.2), SHARD, "differs from population"),
    "pairing of text": (at(("optimizer", 2), "adam"), SHARD, "'optimizer' differs from population"),
    "seed": (at(("seed", 2), 3), SHARD, "'seed' differs from population"),
    "hyperparameter": (at(("lr", 2), np.nan), SHARD, "'lr' has values that are not finite"),
    "order": (
        lambda c: c.update(network_id=c.pop("network_id")),
        SHARD,
        "columns are not in the order of the format",
    ),
    "gap": (at(("network_id", 3), 7), SHARD, "'network_id': expected 0 to 3 in order"),
    "steps back": (
        at(("checkpoint_steps", 0, 0), 1),
        TRAJECTORY,
        "'checkpoint_steps' do not go from 0 to the last step",
    ),
    "end": (
        at(("layers.0.bias", 0, 1, 0), 9),
        TRAJECTORY,
        "'layers.0.bias' does not end at the final parameters",
    ),
}


@pytest.mark.parametrize(("change", "name", "part"), CHANGES.values(), ids=CHANGES)
def test_wrong_values_under_right_hashes_are_found(copy, change, name, part):
    if change is None:
        free = zoo.load(copy)["w_asymmetric"].free["layers.0.weight"].numpy()

        def change(columns):
            row, column = np.argwhere(~free)[0]
            columns["layers.0.weight"][0, row, column] *= -1

    rewrite(copy, change, name)
    faults = verify_zoo(copy, sample=0)
    assert any(part in fault.reason for fault in faults), faults
    assert {fault.path for fault in faults} <= {
        name,
        "sigma_asymmetric/train-00000-of-00001.h5",
        TRAJECTORY,
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [("population", "other"), ("split", "test"), ("shard", 1), ("shards", 2)],
)
def test_a_wrong_attribute_is_found(copy, key, value):
    rewrite(copy, lambda c: None, attributes={key: value})
    (fault,) = verify_zoo(copy, sample=0)
    assert fault.path == SHARD
    assert fault.reason.startswith(f"attribute {key!r}: expected")


MANIFESTS = {
    "hash of the job": (
        lambda d: d.update(config_sha256="0" * 64),
        "config_sha256 is not the hash of config",
    ),
    "job": (lambda d: d["config"].update(seed=9), "config_sha256 is not the hash of config"),
    "no job": (lambda d: d.update(config={"a": {}}), "config is not a job"),
    "name that cannot be one": (
        lambda d: d["config"]["populations"]["sigma_asymmetric"]["architecture"].update(name={}),
        "config is not a job",
    ),
    "architecture": (
        lambda d: d["populations"]["sigma_asymmetric"]["architecture"].update(activation="tanh"),
        "populations: not those of the job",
    ),
    "input": (
        lambda d: d["task"].update(input_shape=[1, 8, 9]),
        "the stored weight space is not that of architecture",
    ),
    "unreadable": (lambda d: d.update(other=1), "other: Extra inputs are not permitted"),
}


@pytest.mark.parametrize(("change", "part"), MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_that_contradict_themselves_are_found(copy, change, part):
    edit(copy, change)
    assert any(fault.path == "zoo.json" and part in fault.reason for fault in verify_zoo(copy))


def test_all_faults_are_listed_not_the_first(copy):
    (copy / SHARD).unlink()
    flip(copy / "sigma_asymmetric/test-00000-of-00001.h5", 8 * 5000)
    (copy / "README.md").write_text("---\nconfigs: []\n---\n")
    shutil.copy(copy / TRAJECTORY, copy / "sigma_asymmetric" / "train-00001-of-00002.h5")
    paths = {fault.path for fault in verify_zoo(copy, sample=0)}
    assert paths == {
        SHARD,
        "sigma_asymmetric/test-00000-of-00001.h5",
        "README.md",
        "sigma_asymmetric/train-00001-of-00002.h5",
    }


def test_a_card_of_other_shards_is_a_fault(copy):
    """`datasets` would take the networks of another zoo out of its cache for it."""
    card = copy / "README.md"
    text = card.read_text()
    start = text.index("description: sha256:") + len("description: sha256:")
    card.write_text(f"{text[:start]}{'0' * 64}{text[start + 64 :]}")
    (fault,) = verify_zoo(copy, sample=0)
    assert fault.path == "README.md"
    assert re.fullmatch(
        r"line 1\d of the header is not '  description: sha256:\w{64}'", fault.reason
    )


HEADERS = {
    "a second list of configurations": lambda text: text.replace(
        "---\n#", "configs: []\n---\n#", 1
    ),
    "another configuration": lambda text: text.replace(
        "configs:\n", "configs:\n- config_name: more\n  data_files: /etc/passwd\n", 1
    ),
    "the right lines as text": lambda text: text.replace("configs:", "other: |\n configs:", 1),
    "a path outside": lambda text: text.replace("path: ", "path: /tmp/", 1),
    "an address": lambda text: text.replace("path: ", "path: https://example.org/", 1),
    "no header": lambda text: text.removeprefix("---\n"),
    "an end too early": lambda text: text[:40],
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_card_whose_header_is_not_ours_is_a_fault(copy, change):
    """`load_dataset` would read what it names; all lines of ours are there in most of these."""
    card = copy / "README.md"
    text = card.read_text()
    assert change(text) != text
    card.write_text(change(text))
    (fault,) = verify_zoo(copy, sample=0)
    assert fault.path == "README.md"
    assert "of the header is not" in fault.reason


def test_accuracies_are_those_of_the_weights(copy):
    """Networks that swap their rows of metrics keep every hash, schema and range right."""

    def change(columns):
        columns["test_accuracy"] = 1 - columns["test_accuracy"]
        columns["generalization_gap"] = columns["train_accuracy"] - columns["test_accuracy"]

    rewrite(copy, change)
    assert verify_zoo(copy, sample=0) == []
    faults = verify_zoo(copy, sample=8)
    assert {fault.path for fault in faults} == {SHARD}
    assert all(
        fault.reason.count("its weights give")
        and ("test_accuracy is" in fault.reason or "generalization_gap is" in fault.reason)
        for fault in faults
    )
    assert len(faults) == 8


def test_a_task_of_a_stranger_opens_no_files_unasked(copy, monkeypatch):
    monkeypatch.setattr(
        "data_gen.integrity.recompute.load_task", lambda _: pytest.fail("the task was loaded")
    )
    job = Job.model_validate(JOB | {"task": {"name": "images", "path": "/etc/secret"}})
    task, count, said = task_to_sample(job, None, trust_task=False, task_path=None)
    assert (task, count) == (None, 0)
    assert "'/etc/secret'" in said
    with pytest.raises(ValueError, match="not opened unasked: give --trust-task, or --task-path"):
        task_to_sample(job, 3, trust_task=False, task_path=None)
    for sizes in ({"train_size": 10**12}, {"train_size": 100, "test_size": 10**5}):
        large = Job.model_validate(JOB | {"task": {"name": "mnist1d", **sizes}})
        task, _, said = task_to_sample(large, None, trust_task=False, task_path=None)
        assert task is None
        assert f"'mnist1d' of {sizes['train_size']} and {sizes.get('test_size')} examples" in said


@pytest.mark.parametrize(
    "task",
    [
        {"name": "antigravity:fly"},
        {"name": "antigravity:fly", "loss": "squared_error"},
        {"loss": "antigravity:fly"},
        {"loss": {"name": "antigravity:fly"}},
    ],
)
def test_a_task_of_a_stranger_imports_nothing_unasked(copy, task):
    """Not by reading, verifying or repairing; `antigravity` opens a browser."""
    stranger = Job.model_validate(JOB | {"task": JOB["task"] | task})

    def change(manifest):
        manifest["config"] = json.loads(stranger.as_json())
        manifest["config_sha256"] = stranger.sha256
        manifest["task"]["loss"] = "antigravity:fly"

    edit(copy, change)
    zoo.load(copy)
    with pytest.raises(ValueError, match=r"'antigravity:fly'.*, which is not opened unasked"):
        task_to_sample(stranger, 3, trust_task=False, task_path=None)
    assert task_to_sample(stranger, None, trust_task=False, task_path=None)[0] is None
    assert verify_zoo(copy)
    with pytest.raises(ValueError, match="which is not opened unasked; give --trust-task"):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)
    assert "antigravity" not in sys.modules


def test_a_task_that_is_not_there_is_an_error(copy):
    job = Job.model_validate(JOB | {"task": {"name": "images", "path": "./none"}})
    with pytest.raises(
        ValueError,
        match=r"the data of the task is not on this machine .*give --task-path, or --sample 0",
    ):
        task_to_sample(job, None, trust_task=True, task_path=None)


def test_bit_flips_are_found_wherever_they_are(original, copy):
    rng = random.Random(1)
    for name in sorted(content(original)):
        if not name.endswith(".h5"):
            continue
        data = (copy / name).read_bytes()
        flip(copy / name, rng.randrange(8 * len(data)))
        assert name in {fault.path for fault in verify_zoo(copy, sample=0)}, name
        (copy / name).write_bytes(data)


def test_mutated_zoos_do_no_harm(original, tmp_path, unchecked):
    """The long form is `make fuzz`."""
    counts, wrong = fuzz(10, 1_000_000, tmp_path, print, original)
    assert (counts.total(), wrong) == (10, [])


def test_a_folder_that_is_not_there_is_no_fault_of_a_zoo(tmp_path):
    for command in (verify_zoo, lambda folder: repair_zoo(folder, quiet=True)):
        with pytest.raises(ValueError, match="nowhere: no such folder"):
            command(tmp_path / "nowhere")
