"""Features equal their slow twins; normalization is per tensor and not thrown by outliers."""

import numpy as np
import pandas as pd
import pytest
import torch

from metanet.contract import InputSpec
from metanet.inputs import features
from metanet.inputs.features import (
    encode_hyperparameters,
    flat_free,
    hyperparameter_columns,
    statistics,
)
from metanet.inputs.normalize import ColumnNorm, TensorNorm
from metanet.testing import permute_neurons, random_population
from tests.reference import metanet_features as slow
from zoo.store.entries import ColumnEntry
from zoo.views import view


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


LR = ColumnEntry(role="hyperparameter", dtype="float64", range=(0, None))
"""As `generate-zoo` declares it."""
NAMED = pd.DataFrame({"lr": [0.1, 0.2], "optimizer": ["sgd", "adamw"]})


def spec_of_tables(train, test, columns):
    """What is known of the hyperparameters of a population with these tables."""
    tables = {"train": train, "test": test}
    population = view(random_population(), table=tables.get, splits=tuple(tables), columns=columns)
    return InputSpec(population.space, {}, hyperparameter_columns(population))


def test_hyperparameters_become_numbers_and_columns_of_names():
    """A number that is missing may be missing; a name that only test networks have is known."""
    train = pd.DataFrame({"lr": [0.1, np.nan], "optimizer": ["sgd", "adamw"]})
    test = pd.DataFrame({"lr": [0.3], "optimizer": ["lion"]})
    spec = spec_of_tables(train, test, {})
    known = spec.hyperparameters
    assert known["optimizer"].values == ("adamw", "lion", "sgd")
    assert (known["lr"].values, known["lr"].nullable) == (None, True)
    np.testing.assert_array_equal(
        encode_hyperparameters(spec, train), [[0.1, 0, 0, 1], [np.nan, 1, 0, 0]]
    )


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"lr": [0.1]}, r"missing \['optimizer'\]"),
        ({"lr": [0.1, np.nan], "optimizer": "sgd"}, r"'lr': expected finite .* got nan \(1 of 2"),
        ({"lr": [np.inf], "optimizer": "sgd"}, "'lr': expected finite numbers from 0 to inf"),
        ({"lr": [-0.1, -1], "optimizer": "sgd"}, r"got -0.1 \(2 of 2 networks\)"),
        ({"lr": ["0.1"], "optimizer": "sgd"}, "'lr': expected finite numbers .* got '0.1'"),
        ({"lr": [0.1], "optimizer": "lion"}, r"expected one of \['adamw', 'sgd'\], got 'lion'"),
        ({"lr": [0.1], "optimizer": None}, r"expected one of \['adamw', 'sgd'\], got None"),
        ({"lr": [0.1], "optimizer": 3}, r"expected one of \['adamw', 'sgd'\], got 3"),
    ],
)
def test_hyperparameters_that_no_network_can_have_are_refused(table, says):
    spec = spec_of_tables(NAMED, NAMED, {"lr": LR})
    with pytest.raises(ValueError, match=says):
        encode_hyperparameters(spec, pd.DataFrame(table))


def test_statistics_of_a_diverged_network_stay_finite():
    norm = ColumnNorm(3)
    norm.calibrate(
        torch.tensor([[0.0, 1e-6, 5.0], [1e-3, 2e-6, 5.0], [2e-3, 3e-6, 5.0], [3e-3, 4e-6, 5.0]])
    )
    largest = torch.finfo(torch.float32).max
    normalized = norm(torch.tensor([[largest, -largest, 1e30]]))
    assert torch.isfinite(normalized).all()
    assert (normalized.abs() > 30).all()
