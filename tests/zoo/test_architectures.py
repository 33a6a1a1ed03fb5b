"""Architectures: one contract for every member of the tables, and twins in plain `torch.nn`."""

import math
import re
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch.func import grad, vmap

from tests.reference.zoo_modules import MODULES
from tests.zoo.instances import INPUTS, instance
from zoo.architectures import (
    ACTIVATIONS,
    ARCHITECTURES,
    ASYMMETRIES,
    Architecture,
    bias_asymmetric,
    build_architecture,
    build_cnn,
    build_gin,
    build_mlp,
    build_resnet,
    build_siren,
    make_asymmetric,
    resnet_n_fix,
    sigma_asymmetric,
    syre,
    w_asymmetric,
)
from zoo.architectures.base import constants_of
from zoo.architectures.masks import distinct_rows
from zoo.params import batch_shape, flatten, free_entries, stack
from zoo.store.bounds import rebuild
from zoo.weight_space import NeuronGroup, WeightSpace

INPUT, CLASSES = (1, 6, 6), 3
KINDS = {"standard": None, **{kind: {} for kind in ASYMMETRIES}, "w kappa 0": {"kappa": 0.0}}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(params):
    return {name: tensor.double() for name, tensor in params.items()}


def inputs(seed: int, count: int = 7, shape=INPUT) -> torch.Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator(seed))


@pytest.fixture
def shape(request) -> tuple[int, ...]:
    """Shape of the inputs of the architecture that the test gets."""
    name, _ = request.node.callspec.params["architecture"]
    return INPUTS[name]


@pytest.fixture(
    params=list(product(ARCHITECTURES, KINDS)), ids=lambda pair: f"{pair[0]}, {pair[1]}"
)
def architecture(request) -> Architecture:
    """Every architecture of the table, small, standard and as each kind of the other table."""
    name, kind = request.param
    standard = instance(name)
    if KINDS[kind] is None:
        return standard
    return make_asymmetric(standard, kind.split()[0], KINDS[kind], seed=0)


# the contract


def test_initial_params_fit_the_space_and_are_reproducible(architecture):
    params = architecture.init(generator(1))
    assert batch_shape(architecture.space, params) == ()
    assert list(params) == list(architecture.space.tensors)
    assert all(tensor.dtype == torch.float32 for tensor in params.values())
    again, other = architecture.init(generator(1)), architecture.init(generator(2))
    assert all(torch.equal(params[name], again[name]) for name in params)
    assert not torch.equal(flatten(architecture.space, params), flatten(architecture.space, other))


def test_many_networks_through_vmap_equal_a_loop(architecture, shape):
    architecture = architecture.to("cpu", torch.float64)
    networks = [double(architecture.init(generator(seed))) for seed in range(4)]
    x = inputs(0, shape=shape)
    together = vmap(architecture.apply, in_dims=(0, None))(stack(networks), x)
    assert together.shape == (4, len(x), CLASSES)
    for logits, network in zip(together, networks, strict=True):
        assert_equal_up_to_rounding(logits, architecture.apply(network, x))


def test_an_image_does_not_see_the_others_of_its_batch(architecture, shape):
    architecture = architecture.to("cpu", torch.float64)
    params, x = double(architecture.init(generator(0))), inputs(1, shape=shape)
    alone = torch.cat([architecture.apply(params, image[None]) for image in x])
    assert_equal_up_to_rounding(architecture.apply(params, x), alone)


def assert_equal_up_to_rounding(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Fixed entries make some networks large, and rounding errors with them."""
    assert (logits - expected).abs().max() <= 1e-12 * max(1.0, float(expected.abs().max()))


def test_every_parameter_has_a_gradient(architecture, shape):
    architecture = architecture.to("cpu", torch.float64)
    x, weights = inputs(2, shape=shape), torch.arange(1.0, 1 + CLASSES, dtype=torch.float64)
    grads = grad(lambda params: (architecture.apply(params, x) @ weights).square().sum())(
        double(architecture.init(generator(3)))
    )
    for name, gradient in grads.items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


def test_free_counts_are_those_of_the_masks(architecture):
    params = architecture.init(generator(0))
    view = free_entries(params, architecture.free)
    statistics = sum(params[name].numel() for name in architecture.statistics)
    assert architecture.num_free == sum(tensor.numel() for tensor in view.values()) - statistics
    assert architecture.space.num_params == sum(tensor.numel() for tensor in params.values())
    assert all(
        mask.dtype == torch.bool and mask.shape == params[name].shape
        for name, mask in architecture.free.items()
    )


def test_moving_to_a_dtype_leaves_masks_boolean_and_the_original_alone(architecture):
    before = dict(architecture.constants)
    moved = architecture.to("cpu", torch.float64)
    for name, tensor in moved.constants.items():
        assert tensor.dtype == (
            torch.bool if name.startswith(("free.", "statistic.")) else torch.float64
        )
        assert architecture.constants[name] is before[name]


def test_an_architecture_of_your_own_needs_a_row_of_the_table_and_no_annotations(monkeypatch):
    def make_mine(input_shape, num_classes, width=3):
        return build_mlp(input_shape, num_classes, (width,))

    monkeypatch.setitem(ARCHITECTURES, "own", make_mine)
    assert (
        build_architecture("own", {"width": 5}, INPUT, CLASSES).space
        == build_mlp(INPUT, CLASSES, (5,)).space
    )
    with pytest.raises(
        ValueError, match=r"unknown option 'height' of architecture 'own'; options are \['width'\]"
    ):
        build_architecture("own", {"height": 5}, INPUT, CLASSES)


# parameter counts in closed form


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


# twins in plain torch.nn


MLP_OPTIONS = [
    {"hidden": hidden, "activation": activation, "norm": norm}
    for hidden, activation, norm in product([(5,), (8, 6, 7)], ACTIVATIONS, ["none", "layer"])
] + [{"hidden": ()}]
CNN_OPTIONS = [
    {
        "channels": (4, 8),
        "activation": activation,
        "norm": norm,
        "norm_groups": 2,
        "pool": ("average", "flatten")[(i + j) % 2],
    }
    for (i, activation), (j, norm) in product(
        enumerate(ACTIVATIONS), enumerate(["none", "group", "layer"])
    )
] + [
    {},
    {"channels": (6,), "kernel": 5, "strides": 3},
    {"channels": (4, 4), "kernel": 1, "strides": (2, 1)},
]
RESNET_OPTIONS = [
    {"channels": (4, 5, 6), "depth": depth, "activation": activation, "norm": norm}
    for depth, activation, norm in product(
        [8, 14], ["relu", "tanh", "gelu"], ["batch", "layer", "none"]
    )
] + [{}]
TRANSFORMER_OPTIONS = [
    {"patch": 3, "dim": 6, "heads": 3, "depth": 1, "activation": "relu"},
    {"patch": 1, "dim": 4, "heads": 1, "depth": 2, "mlp_ratio": 3},
    {"patch": 3},
]
GIN_OPTIONS = [
    {"hidden": 5, "activation": activation, "norm": norm, "pool": pool}
    for activation, norm, pool in product(["relu", "tanh"], ["none", "layer"], ["mean", "sum"])
] + [
    {"hidden": 4, "layers": 1, "edges": [[0, 62], [3, 4], [4, 9]]},
    {"hidden": 4, "layers": 2, "edges": []},
]
SIREN_OPTIONS = [
    {"omega": 1.0},
    {"hidden": (5,), "omega": 2.0},
    {"hidden": (4, 6, 3), "omega": 1.5},
]
OPTIONS = (
    [("mlp", options) for options in MLP_OPTIONS]
    + [("cnn", options) for options in CNN_OPTIONS]
    + [("resnet", options) for options in RESNET_OPTIONS]
    + [("transformer", options) for options in TRANSFORMER_OPTIONS]
    + [("gin", options) for options in GIN_OPTIONS]
    + [("siren", options) for options in SIREN_OPTIONS]
)


def assert_equals_module(
    architecture: Architecture, module: torch.nn.Module, seed: int = 0, shape=(2, 9, 7)
) -> None:
    params = spread(architecture.init(generator(seed)), seed)
    module = module.double().eval()
    assert set(module.state_dict()) == set(params)
    module.load_state_dict(
        params, strict=False
    )  # the names have just been compared; batch norm adds a counter of its own
    x = inputs(seed, shape=shape)
    assert_equal_up_to_rounding(architecture.apply(params, x), module(x).detach())


def spread(params, seed: int):
    """Params that are nowhere special: norms neither 1 nor 0, variances positive."""
    source = generator(seed)
    moved = {
        name: tensor.double() + 0.3 * torch.randn(tensor.shape, generator=source)
        for name, tensor in params.items()
    }
    return {
        name: tensor.abs() + 0.1 if name.endswith("running_var") else tensor
        for name, tensor in moved.items()
    }


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_networks_equal_plain_modules_with_the_same_state_dict(name, options):
    shape = (2, 9, 6) if name == "transformer" else (2, 9, 7)
    module = MODULES[name](shape, CLASSES, **options)
    assert_equals_module(build_architecture(name, options, shape, CLASSES), module, shape=shape)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_what_is_stored_of_an_architecture_builds_it_again(name, options):
    shape = (2, 9, 6) if name == "transformer" else (2, 9, 7)
    made = build_architecture(name, options, shape, CLASSES)
    again = rebuild(made.description, made.space, made.constants)
    assert again.is_like(made)
    params, x = made.init(generator(0)), inputs(0, shape=shape).float()
    assert torch.equal(again.apply(params, x), made.apply(params, x))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("transformer", (3, 12)), ("gin", (3, 7)), ("gin", (2, 2, 3, 2)), ("siren", (2,))],
)
def test_networks_on_other_inputs_than_images_equal_plain_modules(name, shape):
    assert_equals_module(
        build_architecture(name, {}, shape, CLASSES), MODULES[name](shape, CLASSES), shape=shape
    )


def test_nodes_of_a_graph_are_exchangeable_if_the_graph_is():
    """Mirroring a chain maps it onto itself, moving one node does not."""
    architecture = build_gin((3, 6), CLASSES).to("cpu", torch.float64)
    params, x = spread(architecture.init(generator(0)), 0), inputs(0, shape=(3, 6))
    logits = architecture.apply(params, x)
    assert_equal_up_to_rounding(architecture.apply(params, x.flip(2)), logits)
    assert (architecture.apply(params, x.roll(1, 2)) - logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp", {}), ("cnn", {}), ("resnet", {"norm": "none", "channels": (4, 4, 4)})],
)
def test_networks_start_with_the_distribution_of_plain_modules(name, options):
    """Kolmogorov-Smirnov against U(-1/sqrt(fan_in), 1/sqrt(fan_in)); false alarms 1e-4 each."""
    networks = stack(
        [
            ARCHITECTURES[name](INPUT, CLASSES, **options).init(generator(seed))
            for seed in range(100)
        ]
    )
    for name, tensor in networks.items():
        fan_in = math.prod(networks[name.replace("bias", "weight")].shape[2:])
        assert kstest((tensor.flatten() * fan_in**0.5).numpy(), "uniform", (-1, 2)).pvalue > 1e-4


@pytest.mark.parametrize("omega", [1.0, 30.0])
def test_sirens_start_with_their_own_distribution(omega):
    """Kolmogorov-Smirnov, false alarms 1e-4 each. First layer 1/n, others sqrt(6/n) / omega."""
    networks = stack(
        [build_siren((3,), 4, (8, 8), omega).init(generator(seed)) for seed in range(200)]
    )
    bounds = {
        "layers.0.weight": 1 / 3,
        "layers.1.weight": (6 / 8) ** 0.5 / omega,
        "layers.2.weight": (6 / 8) ** 0.5 / omega,
    }
    bounds |= {"layers.0.bias": 3**-0.5, "layers.1.bias": 8**-0.5, "layers.2.bias": 8**-0.5}
    for name, tensor in networks.items():
        assert kstest((tensor.flatten() / bounds[name]).numpy(), "uniform", (-1, 2)).pvalue > 1e-4


def test_pre_activations_of_a_siren_have_the_same_variance_in_every_layer():
    """Theorem 1.8 of Sitzmann et al. 2020: 1 from the weights, `30^2 / (3 n)` from biases."""
    architecture, variances = build_siren((2,), 4, (256,) * 5), []

    def watch(group, z):
        variances.append(float(z.var()))
        return z.sin()

    x = 2 * torch.rand(500, 2, generator=generator(0)) - 1
    architecture.forward(architecture.init(generator(1)), x, watch)
    assert variances[1:] == pytest.approx([1 + 30**2 / (3 * 256)] * 4, rel=0.1)


def test_norms_start_as_the_identity():
    params = build_cnn(INPUT, CLASSES, norm="layer").init(generator(0)) | build_mlp(
        INPUT, CLASSES, norm="layer"
    ).init(generator(0))
    params |= build_resnet(INPUT, CLASSES).init(generator(0))
    norms = [name for name in params if "norm" in name]
    assert len(norms) == 2 * 3 + 4 * (
        1 + 2 * 3 + 2
    )  # the names of the mlp are among those of the cnn
    for name in norms:
        assert (params[name] == (1 if name.endswith(("weight", "running_var")) else 0)).all()


# W-asymmetric


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


# sigma-asymmetric and syre


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("mlp", ["h1", "h2"]),
        ("cnn", ["c1", "c2", "c3"]),
        ("resnet", ["r1", "r2", "r3", "h1", "h2", "h3"]),
        ("gin", ["h1", "h2", "h3", "h4", "h5", "h6"]),
    ],
)
def test_sigma_asymmetric_networks_equal_modules_with_a_fixed_gate(name, groups, norm):
    architecture = sigma_asymmetric(
        build_architecture(name, {"norm": norm}, (2, 9, 7), CLASSES), generator(0)
    )
    architecture = architecture.to("cpu", torch.float64)
    mixing = constants_of(architecture.constants, "mixing")
    assert list(mixing) == groups
    assert_equals_module(architecture, MODULES[name]((2, 9, 7), CLASSES, norm=norm, mixing=mixing))


@pytest.mark.parametrize(
    ("name", "groups"), [("transformer", ["m1", "m2"]), ("siren", ["h1", "h2"])]
)
def test_sigma_asymmetric_networks_without_an_option_for_norms_equal_modules_with_a_fixed_gate(
    name, groups
):
    shape = (2, 8, 4)
    architecture = sigma_asymmetric(build_architecture(name, {}, shape, CLASSES), generator(0)).to(
        "cpu", torch.float64
    )
    mixing = constants_of(architecture.constants, "mixing")
    assert list(mixing) == groups
    assert_equals_module(architecture, MODULES[name](shape, CLASSES, mixing=mixing), shape=shape)


@pytest.mark.parametrize("pool", ["average", "flatten"])
def test_the_gate_mixes_all_channels_of_an_axis_that_norm_groups_share(pool):
    options = {"channels": (4, 8), "norm": "group", "norm_groups": 2, "pool": pool}
    architecture = sigma_asymmetric(build_cnn((2, 9, 7), CLASSES, **options), generator(0)).to(
        "cpu", torch.float64
    )
    mixing = constants_of(architecture.constants, "mixing")
    assert {name: tuple(matrix.shape) for name, matrix in mixing.items()} == {
        "c1": (4, 4),
        "c2": (8, 8),
    }
    assert not any(group.permutable for group in architecture.space.groups.values())
    assert_equals_module(architecture, MODULES["cnn"]((2, 9, 7), CLASSES, mixing=mixing, **options))


@pytest.mark.parametrize(("std", "expected"), [(None, 1 / 16), (0.5, 0.5)])
def test_the_gate_is_gaussian_with_the_standard_deviation_asked_for(std, expected):
    """Kolmogorov-Smirnov on 65,536 values; a right implementation fails with probability 1e-6."""
    constants = sigma_asymmetric(build_mlp((4,), 2, (256,)), generator(0), std).constants
    assert kstest(constants["mixing.h1"].flatten().numpy(), "norm", (0, expected)).pvalue > 1e-6


def test_sigma_asymmetric_networks_train_all_their_parameters_and_start_as_standard_ones():
    standard = build_mlp((4,), 2, (5,))
    architecture = sigma_asymmetric(standard, generator(0))
    assert architecture.num_free == standard.space.num_params
    one, other = standard.init(generator(1)), architecture.init(generator(1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {group.activation for group in architecture.space.groups.values()} == {"linear", "figlu"}


def test_syre_has_an_offset_for_every_parameter_and_changes_nothing_else():
    """Kolmogorov-Smirnov on 4,970 offsets; a right implementation fails with probability 1e-6."""
    standard = build_cnn((1, 6, 6), 10)
    architecture = syre(standard, generator(0), std=0.3)
    offsets = constants_of(architecture.constants, "offset")
    assert batch_shape(standard.space, offsets) == ()
    assert kstest(flatten(standard.space, offsets).numpy(), "norm", (0, 0.3)).pvalue > 1e-6
    one, other = standard.init(generator(1)), architecture.init(generator(1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    x = torch.randn(3, 1, 6, 6, generator=generator(2))
    assert torch.equal(standard.apply(one, x), architecture.apply(one, x))


def test_running_statistics_are_neither_offset_nor_counted():
    standard = build_resnet(INPUT, CLASSES, channels=(4, 4, 4))
    both = syre(w_asymmetric(standard, generator(0), n_fix=2), generator(1))
    assert standard.statistics == both.statistics
    assert set(standard.statistics) == {
        name for name in standard.space.tensors if "running" in name
    }
    assert set(constants_of(both.constants, "offset")) == set(standard.space.tensors) - set(
        standard.statistics
    )
    assert standard.num_free == standard.space.num_params - 2 * 4 * (1 + 2 * 3 + 2)


def test_statistics_need_a_way_to_move():
    standard = build_resnet(INPUT, CLASSES, channels=(4, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"with running statistics needs forward_training, .* got statistics \['stem_norm.run",
    ):
        Architecture(standard.space, standard.draw, standard.forward, standard.constants)
    with pytest.raises(ValueError, match=r"one without must not have it; got statistics \[\]"):
        Architecture(standard.space, standard.draw, standard.forward, {}, standard.forward_training)


def test_batch_norm_refuses_a_batch_of_one_value():
    architecture = build_resnet((1, 4, 4), CLASSES, channels=(4, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"'blocks.2.norm1': expected more than one value for each channel, "
        r"got .*\[1, 4, 1, 1\]",
    ):
        architecture.apply_training(architecture.init(generator(0)), torch.zeros(1, 1, 4, 4))


def test_kinds_combine():
    standard = build_mlp((10,), 4, (8,))
    both = syre(w_asymmetric(standard, generator(0), n_fix=2), generator(1))
    assert {name.split(".")[0] for name in both.constants} == {"free", "fixed", "offset"}
    assert both.num_free == standard.space.num_params - 2 * (8 + 4)


# biases only


def test_all_biases_are_fixed_and_nothing_else():
    """Kolmogorov-Smirnov on 1,210 biases; a right implementation fails with probability 1e-6."""
    standard = build_mlp((10,), 10, (300, 300), norm="layer")
    architecture = bias_asymmetric(standard, generator(0), kappa=0.5)
    biases = {f"layers.{i}.bias" for i in range(3)} | {"norms.0.bias", "norms.1.bias"}
    assert set(architecture.free) == biases
    one, other = (architecture.init(generator(seed)) for seed in (1, 2))
    assert all(torch.equal(one[name], other[name]) for name in biases)
    assert all(
        torch.equal(one[name], standard.init(generator(1))[name]) for name in set(one) - biases
    )
    assert architecture.num_free == standard.space.num_params - sum(
        one[name].numel() for name in biases
    )
    assert kstest(torch.cat([one[name] for name in biases]).numpy(), "norm", (0, 0.5)).pvalue > 1e-6


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_fixed_biases_declare_no_symmetry_unless_they_are_all_zero(norm):
    standard = build_mlp((10,), 4, (8, 6), norm=norm)
    groups = bias_asymmetric(standard, generator(0)).space.groups.values()
    assert not any(
        group.permutable or group.scaling != "none"
        for group in groups
        if group.activation == "relu"
    )
    assert bias_asymmetric(standard, generator(0), kappa=0.0).space == standard.space


def test_a_network_without_biases_has_none_to_fix():
    space = WeightSpace({"x": NeuronGroup(2, permutable=False)}, {"weight": "x"})
    linear = Architecture(
        space, lambda _: {"weight": torch.ones(2)}, lambda params, x, _: x * params["weight"]
    )
    with pytest.raises(ValueError, match=r"no tensor is named bias; tensors are \['weight'\]"):
        bias_asymmetric(linear, generator(0))


# what is refused

MLP, CNN = build_mlp((10,), 4, (8,)), build_cnn((3, 6, 6), 4, (8, 6))


@pytest.mark.parametrize(
    ("standard", "options", "message"),
    [
        (
            MLP,
            {"n_fix": 8},
            r"'layers.1.weight': n_fix=8 would freeze all 8 entries of a row; expected n_fix < 8",
        ),
        (
            MLP,
            {"n_fix": 50},
            r"'layers.0.weight': n_fix=50 would freeze all 10 entries of a row; "
            r"expected n_fix < 10",
        ),
        (MLP, {"n_fix": 0.99}, r"'layers.0.weight': n_fix=10 would freeze all 10 entries"),
        (
            MLP,
            {"n_fix": -1},
            r"'layers.0.weight': expected n_fix as an integer >= 0 or a fraction in "
            r"\(0, 1\), got -1",
        ),
        (
            MLP,
            {"n_fix": 2.0},
            r"expected n_fix as an integer >= 0 or a fraction in \(0, 1\), got 2.0",
        ),
        (
            MLP,
            {"n_fix": float("nan")},
            r"expected n_fix as an integer >= 0 or a fraction in \(0, 1\), got nan",
        ),
        (
            CNN,
            {"n_fix": 8, "fix": "filters"},
            r"'convs.0.weight': n_fix=8 would freeze all 3 input filters of a row",
        ),
        (
            CNN,
            {"n_fix": 1, "fix": "filters"},
            r"'convs.0.weight': 8 rows cannot be distinct with n_fix=1 of 3 input filters",
        ),
        (CNN, {"n_fix": 1, "fix": "filters"}, r"there are only 3 ways to choose"),
        (MLP, {"fix": "rows"}, r"expected fix to be 'entries' or 'filters', got 'rows'"),
        (MLP, {"kappa": -0.5}, r"'layers.0.weight': expected kappa >= 0, got -0.5"),
        (MLP, {"kappa": float("nan")}, r"'layers.0.weight': expected kappa >= 0, got nan"),
        (MLP, {"kappa": math.inf}, r"'layers.0.weight': expected kappa >= 0, got inf"),
        (
            MLP,
            {"n_fix": {"layers.0.weight": 1}},
            r"n_fix as a mapping needs exactly the weights \['layers.0.weight', 'layers.1.we",
        ),
        (
            MLP,
            {"kappa": {"layers.0.bias": 1.0}},
            r"kappa as a mapping needs exactly .*, got \['layers.0.bias'\]",
        ),
        (
            MLP,
            {"kapa": 1.0},
            r"unknown option 'kapa' of asymmetry 'w'; options are \['n_fix', 'kappa', 'fix'\]",
        ),
        (MLP, {"kappa": "1"}, r"option 'kappa' of asymmetry 'w': expected .*, found '1'"),
        (MLP, {"n_fix": [1]}, r"option 'n_fix' of asymmetry 'w': expected .*, found \[1\]"),
        (MLP, {"generator": 1}, r"unknown option 'generator' of asymmetry 'w'"),
    ],
)
def test_w_asymmetric_options_that_do_not_fit(standard, options, message):
    with pytest.raises(ValueError, match=message):
        make_asymmetric(standard, "w", options, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, r"unknown architecture 'vgg'; known are \['cnn', .*'mlp', 'resnet'"),
        (
            "mlp",
            {"width": 3},
            r"unknown option 'width' of architecture 'mlp'; "
            r"options are \['hidden', 'activation', 'norm'\]",
        ),
        ("mlp", {"input_shape": (3,)}, r"unknown option 'input_shape' of architecture 'mlp'"),
        (
            "mlp",
            {"hidden": 32},
            r"option 'hidden' of architecture 'mlp': expected .*Sequence\[int\], found 32",
        ),
        (
            "mlp",
            {"hidden": "32"},
            r"option 'hidden' of architecture 'mlp': expected .*Sequence\[int\], found '32'",
        ),
        ("mlp", {"hidden": [8, 0]}, r"expected an integer >= 1, got 0"),
        (
            "mlp",
            {"activation": "swish"},
            r"unknown activation 'swish'; known are \['gelu', 'leaky_relu', 'linear', 'relu', ",
        ),
        (
            "mlp",
            {"norm": "batch"},
            r"unknown norm 'batch' for an mlp; known are \['layer', 'none'\]",
        ),
        ("cnn", {"activation": "swish"}, r"unknown activation 'swish'"),
        ("cnn", {"norm": "batch"}, r"expected norm in \('none', 'group', 'layer'\) .* got 'batch'"),
        ("cnn", {"pool": "max"}, r"pool in \('average', 'flatten'\), got .*'max'"),
        ("cnn", {"kernel": 4}, r"expected an odd kernel and at least one convolution, got 4"),
        ("cnn", {"kernel": -1}, r"expected an odd kernel and at least one convolution, got -1"),
        (
            "cnn",
            {"channels": []},
            r"expected an odd kernel and at least one convolution, got 3 and \[\]",
        ),
        (
            "cnn",
            {"strides": [1, 2]},
            r"expected 3 strides >= 1, one for each convolution, got \[1, 2\]",
        ),
        (
            "cnn",
            {"strides": 0},
            r"expected 3 strides >= 1, one for each convolution, got \[0, 0, 0\]",
        ),
        (
            "cnn",
            {"norm": "group", "norm_groups": 3},
            r"norm_groups=3 does not divide every entry of channels=\[16, 16, 16\]",
        ),
        ("cnn", {"norm": "group", "norm_groups": 0}, r"norm_groups=0 does not divide"),
        (
            "resnet",
            {"depth": 10},
            r"resnet: expected depth 8, 14, 20, ... and three channels, got 10 and \[16, 32, 64\]",
        ),
        (
            "resnet",
            {"depth": 2},
            r"resnet: expected depth 8, 14, 20, ... and three channels, got 2",
        ),
        (
            "resnet",
            {"channels": [8]},
            r"resnet: expected depth 8, 14, 20, ... and three channels, got 8 and \[8\]",
        ),
        (
            "resnet",
            {"norm": "group"},
            r"unknown norm 'group' for a resnet; known are \['batch', 'layer', 'none'\]",
        ),
        ("resnet", {"width": 0.01}, r"expected an integer >= 1, got 0"),
        ("resnet", {"activation": "swish"}, r"unknown activation 'swish'"),
        ("transformer", {}, r"transformer: patch=4 does not divide \(6, 6\) of inputs \(1, 6, 6\)"),
        ("transformer", {"patch": 0}, r"transformer: patch=0 does not divide"),
        (
            "transformer",
            {"patch": 3, "heads": 3},
            r"expected dim as a multiple of heads, .* got dim=32, heads=3, depth=2, mlp",
        ),
        (
            "transformer",
            {"patch": 3, "depth": 0},
            r"expected dim as a multiple of heads, depth >= 1 .* depth=0, mlp_ratio=2",
        ),
        ("transformer", {"patch": 3, "mlp_ratio": 0}, r"mlp_ratio >= 1, got .* mlp_ratio=0"),
        ("transformer", {"patch": 3, "activation": "swish"}, r"unknown activation 'swish'"),
        (
            "gin",
            {"norm": "batch"},
            r"gin: expected norm in \('none', 'layer'\), .* got 'batch', 'mean' and 3",
        ),
        (
            "gin",
            {"pool": "max"},
            r"pool in \('mean', 'sum'\) and layers >= 1, got 'none', 'max' and 3",
        ),
        ("gin", {"layers": 0}, r"layers >= 1, got 'none', 'mean' and 0"),
        (
            "gin",
            {"edges": [[0, 36]]},
            r"gin: expected an edge as two different nodes from 0 to 35, got \[0, 36\]",
        ),
        (
            "gin",
            {"edges": [[0, 1], [2, 2]]},
            r"gin: expected an edge as two different nodes from 0 to 35, got \[2, 2\]",
        ),
        (
            "gin",
            {"edges": [[0, 1, 2]]},
            r"gin: expected an edge as two different nodes from 0 to 35, got \[0, 1, 2\]",
        ),
        (
            "siren",
            {"hidden": []},
            r"siren: expected at least one hidden layer and omega > 0, got \[\] and 30.0",
        ),
        (
            "siren",
            {"omega": 0.0},
            r"siren: expected at least one hidden layer and omega > 0, got \[32, 32\] and 0.0",
        ),
        ("siren", {"omega": float("nan")}, r"omega > 0, got \[32, 32\] and nan"),
    ],
)
def test_architecture_options_that_do_not_fit(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_architecture(name, options, INPUT, CLASSES)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_convolutional_networks_need_images(name):
    with pytest.raises(
        ValueError,
        match=rf"a {name} needs inputs of shape \(channels, height, width\), got \(64,\)",
    ):
        build_architecture(name, {}, (64,), CLASSES)


@pytest.mark.parametrize(
    ("name", "shape"), [("gin", (64,)), ("transformer", (64,)), ("transformer", (1, 4, 4, 4))]
)
def test_networks_of_positions_need_positions(name, shape):
    with pytest.raises(
        ValueError,
        match=rf"a {name} needs inputs of shape \(channels, .*got {re.escape(str(shape))}",
    ):
        build_architecture(name, {}, shape, CLASSES)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("v", {}, r"unknown asymmetry 'v'; known are \['bias', 'sigma', 'syre', 'w'\]"),
        ("sigma", {"std": 0.0}, r"sigma_asymmetric: expected std > 0, got 0.0"),
        ("sigma", {"std": float("nan")}, r"sigma_asymmetric: expected std > 0, got nan"),
        (
            "sigma",
            {"kappa": 1.0},
            r"unknown option 'kappa' of asymmetry 'sigma'; options are \['std'\]",
        ),
        ("syre", {"std": -1.0}, r"syre: expected std > 0, got -1.0"),
        ("bias", {"kappa": -1.0}, r"bias_asymmetric: expected kappa >= 0, got -1.0"),
        ("bias", {"kappa": float("nan")}, r"bias_asymmetric: expected kappa >= 0, got nan"),
    ],
)
def test_asymmetry_options_that_do_not_fit(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_asymmetric(MLP, kind, options, 0)


def test_a_linear_network_has_no_non_linearity_to_replace():
    with pytest.raises(ValueError, match="the architecture has no non-linearity to replace"):
        sigma_asymmetric(build_mlp((4,), 2, (3,), activation="linear"), generator(0))
