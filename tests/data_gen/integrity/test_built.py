"""`symzoo verify` builds populations again: symmetry and constants are not taken on trust."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import Fault, verify_zoo
from tests.data_gen.integrity.damage import edit, rewrite
from tests.repair_store import content
from tests.zoo.foreign import write_foreign
from zoo.store.mapped import StoreError
from zoo.store.zoo import load

SIGMA, W = "sigma_asymmetric", "w_asymmetric"


def group(population, name, **changed):
    def change(data):
        data["populations"][population]["space"]["groups"][name].update(changed)

    return change


def pattern(population, name, text):
    def change(data):
        data["populations"][population]["space"]["tensors"][name] = text

    return change


CLAIMS = {
    "input pixels": (group(W, "x", permutable=True), "'x': expected .*permutable=False"),
    "classes": (group(SIGMA, "y", permutable=True), "'y': expected .*permutable=False"),
    "neurons": (group(SIGMA, "h1", permutable=True), "'h1': expected .*permutable=False"),
    "scales": (group(W, "h1", scaling="positive"), "'h1': expected .*scaling='none'"),
    "activation": (group(SIGMA, "h1", activation="relu"), "expected .*activation='figlu'"),
    "pattern": (pattern(W, "layers.0.bias", "6"), "'layers.0.bias': expected h1, found 6"),
}


@pytest.mark.parametrize(("change", "part"), CLAIMS.values(), ids=CLAIMS)
def test_a_weight_space_is_that_of_the_job(copy, change, part):
    edit(copy, change)
    (fault,) = verify_zoo(copy, sample=0)
    assert fault.path == "zoo.json"
    assert re.search(part, fault.reason)


def test_repair_declares_what_the_job_gives_and_hides_what_load_dataset_obeys(original, copy):
    edit(copy, group(W, "x", permutable=True))
    (copy / ".huggingface.yaml").write_text("configs: []")
    repair_zoo(copy, device="cpu", compile=False, quiet=True)
    assert json.loads(content(copy)["zoo.json"]) == json.loads(content(original)["zoo.json"])
    assert not (copy / ".huggingface.yaml").exists()


def scaled(name):
    return lambda columns: columns.update({name: columns[name] * np.float32(1.001)})


def moved(columns):
    """Another entry of the first row is free, and has no value."""
    columns["free.layers.1.weight"][0] = np.roll(columns["free.layers.1.weight"][0], 1)


CONSTANTS = {
    "mixing": (SIGMA, scaled("mixing.h1"), "'mixing.h1' is not what the job gives"),
    "fixed": (W, scaled("fixed.layers.0.weight"), "'fixed.layers.0.weight' is not what"),
    "free": (W, moved, "'free.layers.1.weight' is not what the job gives"),
    "other": (
        SIGMA,
        lambda c: c.update({"offset.layers.0.bias": np.zeros(6, np.float32)}),
        "'offset.layers.0.bias' is not what the job gives",
    ),
}


@pytest.mark.parametrize(("name", "change", "part"), CONSTANTS.values(), ids=CONSTANTS)
def test_constants_are_those_of_the_job(copy, name, change, part):
    path = f"constants/{name}.h5"
    rows = len(load(copy)[name].constants) + part.startswith("'offset")
    rewrite(copy, change, path)
    edit(copy, lambda d: d["populations"][name]["constants"].update(rows=rows))
    faults = verify_zoo(copy, sample=0)
    assert any(fault.path == path and part in fault.reason for fault in faults), faults


def test_no_constants_are_drawn_that_no_file_holds(copy):
    """The matrix of a group of a million neurons would take 4 TB."""
    edit(copy, lambda d: d["populations"][SIGMA].update(constants=None))
    (fault,) = verify_zoo(copy, sample=0)
    assert fault == Fault(
        "zoo.json", f"population {SIGMA!r}: no constant 'mixing.h1'; the asymmetry needs it"
    )


def test_a_mixing_matrix_has_the_size_of_its_group(copy):
    rewrite(
        copy,
        lambda c: c.update({"mixing.h1": np.zeros((5, 5), np.float32)}),
        f"constants/{SIGMA}.h5",
    )
    with pytest.raises(StoreError, match=r"'mixing.h1' of shape \[5, 5\] float32 is no"):
        load(copy)[SIGMA].params("train", view="free")


TOLD = {
    "kind of task": lambda d: d["task"].update(kind="regression"),
    "loss": lambda d: d["task"].update(loss="mean_squared"),
    "range of a hyperparameter": lambda d: d["columns"]["lr"].update(range=[-1, None]),
}


@pytest.mark.parametrize("change", TOLD.values(), ids=TOLD)
def test_what_a_manifest_tells_beside_is_that_of_the_job(copy, change):
    edit(copy, change)
    faults = [fault for fault in verify_zoo(copy, sample=0) if fault.path == "zoo.json"]
    assert any(fault.reason.startswith(("task:", "columns:")) for fault in faults)


@pytest.mark.parametrize(
    "name", [".huggingface.yaml", "dataset_infos.json", "state.json", "dataset_info.json", "zoo.py"]
)
def test_files_that_load_dataset_obeys_are_no_part_of_a_zoo(copy, name):
    (copy / name).write_text("configs: [{config_name: default, data_files: /etc/passwd}]")
    assert verify_zoo(copy, sample=0) == [
        Fault(name, "no file of a zoo, and load_dataset obeys it")
    ]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    return write_foreign(tmp_path_factory.mktemp("foreign") / "zoo")


@pytest.fixture
def imported(foreign, tmp_path) -> Path:
    return Path(shutil.copytree(foreign, tmp_path / "zoo"))


def test_symmetry_that_nothing_proves_is_said_to_be_unproved(imported):
    said = []
    assert verify_zoo(imported, report=said.append) == []
    assert said[2:] == [
        "symmetry of population 'unknown' not proved: the zoo does not say what its networks "
        "compute"
    ]


def rename(data):
    space = data["populations"]["known"]["space"]
    space["groups"] = {{"h1": "z"}.get(name, name): g for name, g in space["groups"].items()}
    space["tensors"] = {n: p.replace("h1", "z") for n, p in space["tensors"].items()}


UNPROVED = {
    "module": lambda d: d["populations"]["known"].update(architecture={"name": "module"}),
    "patterns": rename,
}


@pytest.mark.parametrize("change", UNPROVED.values(), ids=UNPROVED)
def test_what_is_not_an_architecture_of_ours_is_unproved(imported, change):
    edit(imported, change)
    said = []
    assert verify_zoo(imported, report=said.append) == []
    assert [line.partition(" not ")[0] for line in said[2:]] == [
        "symmetry of population 'known'",
        "symmetry of population 'unknown'",
    ]


@pytest.mark.parametrize(
    ("name", "changed"), [("x", {"permutable": True}), ("y", {"scaling": "sign"})]
)
def test_an_imported_zoo_declares_no_more_than_its_architecture_has(imported, name, changed):
    edit(imported, group("known", name, **changed))
    (fault,) = verify_zoo(imported)
    assert fault.reason == (
        f"population 'known': group {name!r} declares symmetry that the architecture does not have"
    )
