"""Features equal their slow twins; normalization is per tensor and not thrown by outliers."""

import numpy as np
import pandas as pd
import pytest
import torch

from metanet.contract import InputSpec
from metanet.inputs import features
from metanet.inputs.features import (
    categories,
    encode_hyperparameters,
    flat_free,
    statistics,
)
from metanet.inputs.normalize import ColumnNorm, TensorNorm
from metanet.testing import permute_neurons, random_population
from tests.reference import metanet_features as slow


def case(masked):
    population = random_population(masked=masked)
    return InputSpec(population.space, population.free), population.params("test")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_equal_their_twins(masked, dtype):
    spec, params = case(masked)
    params = {name: tensor.to(dtype) for name, tensor in params.items()}
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    flat, statistic = flat_free(spec, params), statistics(spec, params)
    assert flat.dtype == statistic.dtype == dtype
    np.testing.assert_array_equal(flat.double(), slow.flat(spec.space, spec.free, params))
    expected = slow.statistics(spec.space, spec.free, params)
    np.testing.assert_allclose(statistic.double(), expected, rtol=tolerance, atol=tolerance)
    assert statistic.shape[1] == 7 * len(spec.space.tensors)
    assert flat.shape[1] == sum(spec.free_sizes.values())


def test_chunks_change_nothing(monkeypatch):
    spec, params = case(masked=False)
    whole = statistics(spec, params)
    monkeypatch.setattr(features, "CHUNK_ENTRIES", 50)
    assert torch.equal(statistics(spec, params), whole)


def test_statistics_are_bitwise_invariant():
    spec, params = case(masked=False)
    moved = permute_neurons(spec.space, params, torch.Generator().manual_seed(0))
    assert torch.equal(statistics(spec, params), statistics(spec, moved))


def test_a_tensor_without_free_entries_is_left_out():
    spec, params = case(masked=True)
    frozen = InputSpec(
        spec.space, {**spec.free, "layers.0.weight": torch.zeros(6, 5, dtype=torch.bool)}
    )
    assert "layers.0.weight" not in frozen.free_sizes
    assert statistics(frozen, params).shape[1] == 7 * 5


def test_huge_weights_give_finite_statistics():
    spec, params = case(masked=False)
    params["layers.0.weight"][0] = 3e38
    params["layers.0.weight"][1, 0] = -3e38
    assert statistics(spec, params).isfinite().all()


def test_norm_is_one_number_per_tensor():
    norm = TensorNorm([3, 2])
    x = (
        torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 2, 3, 10, 10])
        + 4
    )
    norm.settle(norm.summarize(x))
    assert norm.center.unique().numel() == norm.scale.unique().numel() == 2
    z = norm(x)
    for piece in z.split([3, 2], dim=1):
        assert piece.mean().abs() < 0.1
        assert 0.8 < piece.std() < 1.5


def test_norms_are_not_thrown_by_a_diverged_network():
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    wild = x.clone()
    wild[7] = 1e30
    tensors, columns = (TensorNorm([4]), TensorNorm([4])), (ColumnNorm(4), ColumnNorm(4))
    for values, tensor_norm, column_norm in zip((x, wild), tensors, columns, strict=True):
        tensor_norm.settle(tensor_norm.summarize(values))
        column_norm.calibrate(values)
    for clean, dirty in (tensors, columns):
        torch.testing.assert_close(dirty.center, clean.center, rtol=0, atol=0.1)
        torch.testing.assert_close(dirty.scale, clean.scale, rtol=0.1, atol=0)
        assert dirty(wild).abs().max() < 100


def test_constant_columns_are_not_divided_by_zero():
    norm = ColumnNorm(2)
    norm.calibrate(torch.ones(10, 2))
    assert torch.equal(norm(torch.ones(3, 2)), torch.zeros(3, 2))
    norm = TensorNorm([2])
    norm.settle(norm.summarize(torch.zeros(10, 2)))
    assert norm(torch.zeros(3, 2)).isfinite().all()


def test_hyperparameters_become_numbers():
    table = pd.DataFrame({"lr": [0.1, np.nan], "optimizer": ["sgd", "adamw"], "seed": [1, 2]})
    spec = InputSpec(random_population().space, {}, categories(table, ("lr", "optimizer")))
    assert spec.hyperparameters == {"lr": None, "optimizer": ("adamw", "sgd")}
    np.testing.assert_array_equal(
        encode_hyperparameters(spec, table), [[0.1, 0, 1], [np.nan, 1, 0]]
    )
    unknown = pd.DataFrame({"lr": [1.0], "optimizer": ["lion"]})
    np.testing.assert_array_equal(encode_hyperparameters(spec, unknown), [[1, 0, 0]])
    with pytest.raises(ValueError, match=r"missing \['optimizer'\]"):
        encode_hyperparameters(spec, table[["lr"]])


def test_statistics_of_a_diverged_network_stay_finite():
    norm = ColumnNorm(3)
    norm.calibrate(
        torch.tensor([[0.0, 1e-6, 5.0], [1e-3, 2e-6, 5.0], [2e-3, 3e-6, 5.0], [3e-3, 4e-6, 5.0]])
    )
    largest = torch.finfo(torch.float32).max
    normalized = norm(torch.tensor([[largest, -largest, 1e30]]))
    assert torch.isfinite(normalized).all()
    assert (normalized.abs() > 30).all()
