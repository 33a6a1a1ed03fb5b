"""Files of metanets from anywhere: refused in words, before anything large is made."""

import json
import math
import os
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import metanet
from metanet import METANETS, Metanet
from metanet.testing import random_population
from zoo.store.bounds import checked_space

POPULATION = random_population(sizes=(12, 6, 6), masked=True)
HUGE = 10**9


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of every metanet: its record and its tensors."""
    contents = {}
    for name in METANETS:
        path = tmp_path_factory.mktemp("files") / name
        Metanet(name, epochs=1).fit(POPULATION).save(path)
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["metanet"])
            contents[name] = record, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return contents


def written(path, record, tensors):
    text = record if isinstance(record, str) else json.dumps(record)
    save_file(tensors, path, metadata={"metanet": text})
    return path


def changed(record, places):
    """The record with other values at some places; `...` takes an entry away."""
    record = json.loads(json.dumps(record))
    for place, value in places.items():
        *parents, last = place.split("/")
        target = record
        for key in parents:
            target = target[int(key) if isinstance(target, list) else key]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return record


def refused(path, says):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=says) as refusal:
        metanet.load(path)
    assert len(str(refusal.value)) < 3000
    assert str(path) in str(refusal.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500 * 1024, "KiB"


def test_the_files_load_as_they_are(files, tmp_path):
    for name, content in files.items():
        metanet.load(written(tmp_path / name, *content)).predict(POPULATION)


PLACES = (
    *("format", "params", "spaces", "num_steps", "target", "training", "history", "trained_on"),
    *("versions", "params/model", "params/seed", "params/epochs", "params/treatment"),
    *("spaces/0/space", "spaces/0/space_fingerprint", "spaces/0/hyperparameters"),
    *("spaces/0/network", "spaces/0/space/groups", "spaces/0/space/tensors"),
    "spaces/0/hyperparameters/lr/low",
    *("target/name", "target/link", "target/center", "target/scale", "target/low"),
    *("training/epochs", "training/lr", "history/validation_loss", "history/best_epoch"),
    *("trained_on/population", "trained_on/num_train"),
)
WRONG = (..., None, "x", -1, [], {}, [[]], {"x": 1}, 10**400, True)
OPTIONAL = [
    ("spaces/0/network", None),
    ("spaces/0/hyperparameters", {}),
    ("params", {}),
    ("params/treatment", {}),
    ("training", {}),
    ("spaces/0/hyperparameters/lr/low", None),
    ("target/name", "x"),
    ("trained_on/population", "x"),
    ("params/epochs", None),
    ("target/center", -1),
    ("target/low", -1),
    ("spaces/0/hyperparameters/lr/low", -1),
    ("history/validation_loss", []),
    ("versions", {}),
]


@pytest.mark.parametrize("place", PLACES)
def test_entries_that_are_missing_or_of_another_type_are_refused(files, tmp_path, place):
    record, tensors = files["statnn"]
    for at, value in enumerate(WRONG):
        may_be_left_out = value is ... and (
            place.startswith(("params/", "training/")) or place.endswith("/low")
        )
        if may_be_left_out or any(place == p and value == v for p, v in OPTIONAL):
            continue
        path = written(tmp_path / str(at), changed(record, {place: value}), tensors)
        refused(path, "not a metanet|:")


HOSTILE = {
    "no such link": ("statnn", {"target/link": "linear"}, "'logit', 'log' or 'identity'"),
    "scale of zero": (
        "statnn",
        {"target/scale": 0},
        "target.scale: .* greater than 0",
    ),
    "NaN in text": ("statnn", {"target/center": math.nan}, "not JSON"),
    "wide": ("statnn", {"params/width": 65536}, "do not fit metanet 'statnn'.*size mismatch"),
    "wider": ("statnn", {"params/width": 10**6}, "expected at most 65536"),
    "deep": ("nfn", {"params/layers": 1000}, "do not fit metanet 'nfn'"),
    "many layers": ("nfn", {"params/layers": HUGE}, "expected at most 1000"),
    "many epochs": ("statnn", {"params/epochs": 1e30}, "expected int"),
    "many samples": (
        "statnn",
        {"params/treatment": {"orbit_average": {"samples": HUGE}}},
        "'samples' of treatment 'orbit_average': expected at most 1000",
    ),
    "steps that are not there": ("statnn", {"num_steps": 5}, "zip"),
    "many steps": ("statnn", {"num_steps": HUGE}, "num_steps"),
    "no such option": ("statnn", {"params/no": 3}, "unknown option 'no'"),
    "an option named self": ("statnn", {"params/self": 3}, "unknown option 'self'"),
    "no such metanet": ("statnn", {"params/model": "os.system"}, "unknown metanet"),
    "another metanet": ("statnn", {"params/model": "dmc"}, "unknown option|do not fit"),
    "another population": ("statnn", {"spaces/0/space/groups/h1/size": 7}, "fingerprint"),
    "no spaces": ("statnn", {"spaces": []}, "spaces"),
    "device without a name": ("statnn", {"params/device": 3}, "option 'device'"),
    "wide network": ("probe", {"spaces/0/network/architecture/hidden": [HUGE]}, "at most"),
    "deep network": ("probe", {"spaces/0/network/architecture/hidden": [6] * 99}, "more than"),
    "large input": ("probe", {"spaces/0/network/input_shape": [HUGE]}, "input_shape"),
    "many classes": ("probe", {"spaces/0/network/num_classes": HUGE}, "num_classes"),
    "module": ("probe", {"spaces/0/network/architecture/name": "module"}, "torch modules"),
    "many probes": ("probe", {"params/num_probes": 65536}, "do not fit metanet 'probe'"),
    "nested": ("statnn", {"params/treatment": json.loads("[" * 900 + "]" * 900)}, "not JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_records_are_refused(files, tmp_path, case):
    model, places, says = HOSTILE[case]
    record, tensors = files[model]
    refused(written(tmp_path / "m", changed(record, places), tensors), says)


def test_text_that_is_no_record_is_refused(files, tmp_path):
    _, tensors = files["statnn"]
    texts = ["null", "[]", "3", "{", "[" * 10**5, '"format"', '{"format": 3}', "[0" + ",0" * 2**20]
    for at, text in enumerate(texts):
        refused(written(tmp_path / str(at), text, tensors), "not a metanet|format|missing")


@pytest.mark.parametrize("model", METANETS)
def test_spaces_of_any_size_allocate_nothing(files, tmp_path, model):
    """Groups of 2^30 neurons, whose weights no tensor of the file has."""
    record, tensors = files[model]
    record = changed(record, {"spaces/0/network": None} if model != "probe" else {})
    space = record["spaces"][0]["space"]
    for group in space["groups"].values():
        group["size"] = 2**30
    record["spaces"][0]["space_fingerprint"] = checked_space(space).fingerprint
    tensors = {key: tensor for key, tensor in tensors.items() if ".free." not in key}
    path = written(tmp_path / "m", record, tensors)
    if model in ("hparams", "gbm", "statnn"):
        metanet.load(path)  # sizes of tensors are nothing to them
    else:
        refused(path, "do not fit|at most|not that of|cannot be built")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(files, tmp_path, bad):
    record, tensors = files["mlp"]
    for name in ("module.readout.weight", "module.norm.scale"):
        spoiled = {**tensors, name: torch.full_like(tensors[name], bad)}
        refused(written(tmp_path / "m", record, spoiled), "finite numbers, found others")


def test_tensors_of_another_type_or_name_are_refused(files, tmp_path):
    record, tensors = files["mlp"]
    name = "module.readout.weight"
    without = {key: tensor for key, tensor in tensors.items() if key != name}
    free = next(key for key in tensors if key.startswith("0.free."))
    for at, (others, says) in enumerate(
        [
            (without, "missing \\['readout.weight'\\]"),
            ({**without, name: tensors[name].double()}, "another type"),
            ({**without, name: tensors[name].int()}, "another type"),
            ({**without, name: tensors[name].T.contiguous()}, "size mismatch"),
            ({**tensors, "module.more": torch.ones(1)}, "unknown \\['more'\\]"),
            ({**tensors, free: tensors[free].float()}, "is no constant"),
            ({**tensors, free: tensors[free][:1]}, "is no constant"),
            ({**tensors, "0.free.more": torch.ones(1).bool()}, "is no constant"),
        ]
    ):
        refused(written(tmp_path / str(at), record, others), says)


def test_trees_that_lead_nowhere_are_refused(files, tmp_path):
    record, tensors = files["gbm"]
    left, count = tensors["module.trees.left"], len(tensors["module.trees.left"])
    for name, value in [
        ("left", torch.zeros_like(left)),  # a loop: prediction would never end
        ("right", left + count),
        ("root", tensors["module.trees.root"] - 1),
        ("root", tensors["module.trees.root"] + count),
        ("feature", tensors["module.trees.feature"] - 1),
        ("value", tensors["module.trees.value"].float()),
        ("threshold", tensors["module.trees.threshold"][:-1]),
    ]:
        spoiled = {**tensors, f"module.trees.{name}": value.contiguous()}
        refused(written(tmp_path / "m", record, spoiled), "trees: expected")
    wide = {**tensors, "module.trees.feature": torch.full_like(left, 10**6)}
    loaded = metanet.load(written(tmp_path / "wide", record, wide))
    with pytest.raises(ValueError, match="trees read column 1000000, got 42 columns"):
        loaded.predict(POPULATION)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "", "missing", "a" * 300):
        with pytest.raises(OSError, match=r"no such file|name too long"):
            metanet.load(tmp_path / name)
