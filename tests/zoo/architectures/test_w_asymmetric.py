"""W-asymmetric architectures: what is fixed, where, and at which values."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from tests.zoo.architectures.twins import generator
from zoo.architectures import Architecture, build_cnn, build_mlp, w_asymmetric
from zoo.architectures.base import constants_of
from zoo.architectures.masks import distinct_rows
from zoo.params import free_entries

W_CASES = {
    "mlp": (build_mlp((10,), 4, (8, 6)), {"n_fix": 3}),
    "cnn entries": (build_cnn((3, 6, 6), 4, (8, 6)), {"n_fix": 3}),
    "cnn filters": (build_cnn((3, 6, 6), 3, (3, 3)), {"n_fix": 1, "fix": "filters"}),
    "flattened": (build_cnn((3, 6, 6), 4, (8, 6), pool="flatten"), {"n_fix": 3}),
}


@pytest.mark.parametrize(("standard", "options"), W_CASES.values(), ids=W_CASES)
class TestWAsymmetric:
    def test_rows_fix_exactly_n_fix_units_and_no_two_agree(self, standard, options):
        architecture = w_asymmetric(standard, generator(0), **options)
        assert set(architecture.free) == {
            name for name in standard.space.tensors if name.endswith("weight")
        }
        for name, mask in architecture.free.items():
            per_unit = mask[0, 0].numel() if options.get("fix") == "filters" else 1
            rows = [tuple(row.flatten().tolist()) for row in mask]
            assert [row.count(False) for row in rows] == [options["n_fix"] * per_unit] * len(
                mask
            ), name
            assert len(set(rows)) == len(rows), name

    def test_fixed_entries_are_in_the_initial_params_and_zero_elsewhere(self, standard, options):
        architecture = w_asymmetric(standard, generator(0), kappa=2.0, **options)
        params = architecture.init(generator(5))
        for name, mask in architecture.free.items():
            fixed = architecture.constants[f"fixed.{name}"]
            assert torch.equal(params[name][~mask], fixed[~mask])
            assert (fixed[mask] == 0).all()
            assert (fixed[~mask] != 0).all()

    def test_free_entries_start_as_those_of_the_standard_network_bit_by_bit(
        self, standard, options
    ):
        architecture = w_asymmetric(standard, generator(0), **options)
        plain = free_entries(standard.init(generator(5)), architecture.free)
        asymmetric = free_entries(architecture.init(generator(5)), architecture.free)
        assert all(torch.equal(plain[name], asymmetric[name]) for name in plain)

    def test_the_function_is_the_standard_one_of_the_effective_params(self, standard, options):
        architecture = w_asymmetric(standard, generator(0), **options)
        params, x = architecture.init(generator(5)), torch.randn(4, 300, generator=generator(0))
        x = x[:, : math.prod(standard_input(standard))].reshape(4, *standard_input(standard))
        assert torch.equal(architecture.apply(params, x), standard.apply(params, x))

    def test_kappa_scales_the_fixed_entries_and_nothing_else(self, standard, options):
        one, three, zero = (
            w_asymmetric(standard, generator(7), kappa=k, **options) for k in (1.0, 3.0, 0.0)
        )
        for name in one.free:
            assert torch.equal(one.free[name], three.free[name])
            assert torch.equal(one.free[name], zero.free[name])
            assert torch.equal(
                3.0 * one.constants[f"fixed.{name}"], three.constants[f"fixed.{name}"]
            )
            assert (zero.constants[f"fixed.{name}"] == 0).all()

    def test_the_seed_decides(self, standard, options):
        same, other = (
            w_asymmetric(standard, generator(7), **options),
            w_asymmetric(standard, generator(8), **options),
        )
        architecture = w_asymmetric(standard, generator(7), **options)
        assert all(
            torch.equal(tensor, same.constants[name])
            for name, tensor in architecture.constants.items()
        )
        assert any(
            not torch.equal(mask, other.free[name]) for name, mask in architecture.free.items()
        )


def standard_input(architecture: Architecture) -> tuple[int, ...]:
    return (10,) if "layers.0.weight" in architecture.space.tensors else (3, 6, 6)


def test_filters_mode_fixes_whole_filters_and_entries_mode_does_not():
    standard = build_cnn((3, 6, 6), 3, (3, 3))
    filters = w_asymmetric(standard, generator(0), n_fix=1, fix="filters").free
    entries = w_asymmetric(standard, generator(0), n_fix=0.3).free
    for name in ("convs.0.weight", "convs.1.weight"):
        whole = [
            mask.flatten(2).all(2) | ~mask.flatten(2).any(2)
            for mask in (filters[name], entries[name])
        ]
        assert whole[0].all()
        assert not whole[1].all()
    assert (
        filters["classifier.weight"].sum(1) == 2
    ).all()  # a linear layer has no filters: entries


@pytest.mark.parametrize("kappa", [0.25, 1.0, 4.0])
def test_fixed_entries_are_normal_with_standard_deviation_kappa(kappa):
    """Kolmogorov-Smirnov on 12,800 values: false alarms 1e-6; 10% off is always seen."""
    architecture = w_asymmetric(build_mlp((128,), 200, ()), generator(3), n_fix=64, kappa=kappa)
    (fixed,) = constants_of(architecture.constants, "fixed").values()
    values = fixed[~architecture.free["layers.0.weight"]].numpy()
    assert len(values) == 200 * 64
    assert kstest(values, "norm", (0, kappa)).pvalue > 1e-6
    assert kstest(values, "norm", (0, 1.1 * kappa)).pvalue < 1e-6


def test_every_entry_of_a_row_is_as_likely_to_be_fixed():
    """Chi-square on the columns of 600 masks; false alarms 1e-6."""
    source = generator(0)
    fixed = sum(
        (~distinct_rows(6, 9, 2, source)).sum(0) for _ in range(600)
    )  # 36 choices for 6 rows: drawn with rejection
    assert chisquare(fixed.numpy()).pvalue > 1e-6
    fixed = sum(
        (~distinct_rows(10, 5, 2, source)).sum(0) for _ in range(600)
    )  # all 10 choices: every column four times
    assert (fixed == 4 * 600).all()


@given(st.integers(2, 7), st.data())
def test_distinct_rows_are_distinct_for_all_sizes_up_to_the_last_choice(columns, data):
    n_fix = data.draw(st.integers(1, columns - 1))
    rows = data.draw(st.integers(1, math.comb(columns, n_fix)))
    seed = data.draw(st.integers(0, 2**31))
    mask = distinct_rows(rows, columns, n_fix, generator(seed))
    assert mask.shape == (rows, columns)
    assert ((~mask).sum(1) == n_fix).all()
    assert len({tuple(row.tolist()) for row in mask}) == rows
    assert torch.equal(mask, distinct_rows(rows, columns, n_fix, generator(seed)))


def test_a_mapping_sets_each_tensor_and_zero_leaves_one_as_it_is():
    standard = build_mlp((10,), 4, (8, 6))
    architecture = w_asymmetric(
        standard,
        generator(0),
        n_fix={"layers.0.weight": 4, "layers.1.weight": 0, "layers.2.weight": 0.5},
        kappa={"layers.0.weight": 2.0, "layers.1.weight": 1.0, "layers.2.weight": 0.0},
    )
    assert {name: int((~mask[0]).sum()) for name, mask in architecture.free.items()} == {
        "layers.0.weight": 4,
        "layers.2.weight": 3,
    }
    assert architecture.constants["fixed.layers.0.weight"].abs().max() > 0
    assert architecture.constants["fixed.layers.2.weight"].abs().max() == 0
    assert architecture.num_free == standard.space.num_params - 8 * 4 - 4 * 3
