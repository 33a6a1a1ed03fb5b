"""Studies refuse networks with parameters that are not finite, instead of leaving cells empty."""

import numpy as np
import pytest

import zoo
from studies.common.computed_targets import with_derived
from studies.common.evaluation import all_networks, checkpoints
from tests.stored import read_attributes, read_columns
from tests.studies.zoos import write_zoo
from tests.zoo.foreign import write_foreign
from zoo.store.hdf5 import write_columns


def put(path, name, index, value):
    """Write a value into a file; its map and its length stay."""
    columns = read_columns([path])
    attributes = read_attributes(path)
    attributes.pop("format_version", None)
    columns[name][index] = value
    write_columns(path, columns, attributes)


def test_networks_that_are_not_finite_are_refused(tmp_path):
    write_zoo(tmp_path / "zoo", ("standard",), (4, 2, 2))
    path = tmp_path / "zoo/standard/validation-00000-of-00001.h5"
    put(path, "layers.1.bias", (1, 0), np.inf)
    population = zoo.load(tmp_path / "zoo")["standard"]
    with pytest.raises(ValueError, match=r"'standard': network 5, tensor 'layers.1.bias': expect"):
        all_networks(population)
    seen = with_derived(population, ["squared_weight_norm"], tmp_path / "targets")
    seen.table("train")
    with pytest.raises(ValueError, match=r"'standard', 'validation': network 1, tensor 'layers"):
        seen.table("validation")


def test_checkpoints_that_are_not_finite_are_refused(tmp_path):
    write_foreign(tmp_path / "zoo")
    path = tmp_path / "zoo/known.trajectory/test-00001-of-00002.h5"
    put(path, "layers.0.weight", (2, 1, 3, 0), np.nan)
    population = zoo.load(tmp_path / "zoo")["known"]
    assert len(checkpoints(population, "train")[0]) == 12
    with pytest.raises(ValueError, match=r"split 'test': network 7, 1, tensor 'layers.0.weight'"):
        checkpoints(population, "test")
