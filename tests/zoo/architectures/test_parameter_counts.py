"""Counts of parameters in closed form, and those of the literature."""

import math
from itertools import pairwise

import pytest

from tests.zoo.architectures.twins import generator
from zoo.architectures import build_cnn, build_mlp, build_resnet, resnet_n_fix, w_asymmetric


@pytest.mark.parametrize("hidden", [(), (5,), (7, 4), (3, 9, 2)])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_parameter_counts_of_mlps(hidden, norm):
    widths = [12, *hidden, 4]
    expected = sum(out * (fan_in + 1) for fan_in, out in pairwise(widths)) + (
        2 * sum(hidden) if norm == "layer" else 0
    )
    assert build_mlp((3, 2, 2), 4, hidden, norm=norm).space.num_params == expected


@pytest.mark.parametrize(
    ("channels", "kernel", "strides"), [((5,), 3, 2), ((4, 8), 5, (1, 3)), ((4, 4, 4), 1, 2)]
)
@pytest.mark.parametrize("norm", ["none", "group", "layer"])
@pytest.mark.parametrize("pool", ["average", "flatten"])
def test_parameter_counts_of_cnns(channels, kernel, strides, norm, pool):
    steps = [strides] * len(channels) if isinstance(strides, int) else strides
    side = 9
    for step in steps:
        side = math.ceil(side / step)
    convs = sum(out * (fan_in * kernel**2 + 1) for fan_in, out in pairwise([2, *channels]))
    norms = 0 if norm == "none" else 2 * sum(channels)
    classifier = 10 * (channels[-1] * (side**2 if pool == "flatten" else 1) + 1)
    architecture = build_cnn(
        (2, 9, 9), 10, channels, kernel, strides, norm=norm, norm_groups=channels[0], pool=pool
    )
    assert architecture.space.num_params == convs + norms + classifier


def test_the_default_cnn_has_as_many_parameters_as_those_of_unterthiner_et_al():
    assert build_cnn((1, 28, 28), 10).space.num_params == 4970


@pytest.mark.parametrize(
    ("options", "count"), [({}, 78_042), ({"width": 0.875}, 59_944), ({"depth": 20}, 272_474)]
)
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_resnets_have_as_many_trained_parameters_as_those_of_lim_et_al(options, count, norm):
    architecture = build_resnet((3, 32, 32), 10, norm=norm, **options)
    assert architecture.num_free == count
    statistics = sum(math.prod(architecture.space.shapes[name]) for name in architecture.statistics)
    assert architecture.space.num_params == count + statistics
    assert bool(statistics) == (norm == "batch")


def test_w_asymmetric_resnets_have_the_free_parameters_of_lim_et_al_but_for_the_first_layer():
    """Theirs fix 8 filters everywhere, all 432 entries of the first layer too: 60,634 are free."""
    standard = build_resnet((3, 32, 32), 10, norm="layer")
    weights = resnet_n_fix(8)
    n_fix = dict.fromkeys(weights, 8) | {"stem.weight": 0}
    architecture = w_asymmetric(standard, generator(0), n_fix=n_fix, kappa=2.0, fix="filters")
    assert architecture.num_free == 60_634 + 432
    with pytest.raises(
        ValueError, match=r"'stem.weight': n_fix=8 would freeze all 3 input filters of a row"
    ):
        w_asymmetric(standard, generator(0), n_fix=8, fix="filters")


@pytest.mark.parametrize(("depth", "count"), [(8, 63_242), (14, 146_634), (20, 230_026)])
def test_the_table_of_fixed_entries_fits_resnets_of_every_depth(depth, count):
    architecture = w_asymmetric(
        build_resnet((3, 32, 32), 10, depth), generator(0), n_fix=resnet_n_fix(depth), kappa=2.0
    )
    assert architecture.num_free == count
    rows = {name: int((~mask[0]).sum()) for name, mask in architecture.free.items()}
    assert rows == resnet_n_fix(depth)
    assert rows["stem.weight"] == 12 and rows["classifier.weight"] == 8
    assert sorted(set(rows.values())) == [6, 8, 12, 36, 54, 72]


@pytest.mark.parametrize(
    ("n_fix", "per_row"), [(2, (2, 2)), (0.25, (3, 2)), (0.1, (1, 1)), (0.01, (1, 1))]
)
def test_free_counts_of_w_asymmetric_mlps(n_fix, per_row):
    architecture = w_asymmetric(build_mlp((12,), 4, (7,)), generator(0), n_fix=n_fix)
    assert architecture.num_free == architecture.space.num_params - 7 * per_row[0] - 4 * per_row[1]
