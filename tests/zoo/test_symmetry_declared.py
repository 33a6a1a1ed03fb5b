"""The symmetry that a weight space declares is one the function has; what asymmetric kinds take away is gone."""

from itertools import product

import pytest
import torch

from tests.reference.zoo_action import (
    act,
    all_permutations_but_identity,
    count_permutations,
    random_permutations,
    random_scales,
)
from zoo.architectures import (
    ACTIVATIONS,
    ARCHITECTURES,
    ASYMMETRIES,
    Architecture,
    build_architecture,
    cnn,
    make_asymmetric,
    mlp,
    sigma_asymmetric,
    w_asymmetric,
)

INPUT, CLASSES = (2, 7, 7), 3
OPTIONS = [
    ("mlp", {"hidden": (6, 5), "activation": activation, "norm": norm})
    for activation, norm in product(ACTIVATIONS, ["none", "layer"])
] + [
    ("cnn", {"channels": (4, 6), "activation": activation, "norm": norm, "norm_groups": groups, "pool": pool})
    for activation in ACTIVATIONS
    for norm, groups, pool in [
        ("none", 2, "average"),
        ("none", 2, "flatten"),
        ("layer", 2, "average"),
        ("group", 1, "flatten"),
        ("group", 2, "flatten"),
    ]
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
    """A network with nothing special about it: its norms are neither 1 nor 0."""
    source = generator(seed)
    params = architecture.init(source)
    return {name: tensor.double() + 0.3 * torch.randn(tensor.shape, generator=source) for name, tensor in params.items()}


def change(architecture: Architecture, params, permutations, scales) -> float:
    """How far the logits move when the params are acted on."""
    x = torch.randn(5, *INPUT, dtype=torch.float64, generator=generator(0))
    architecture = architecture.to("cpu", torch.float64)
    moved = act(architecture.space, params, permutations, scales)
    return float((architecture.apply(moved, x) - architecture.apply(params, x)).abs().max())


def permute(architecture: Architecture, group: str) -> dict[str, torch.Tensor]:
    return {group: torch.arange(architecture.space.groups[group].size).roll(1)}


# standard networks


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_declared_permutations_and_scales_leave_the_function_alone(name, options):
    architecture = build_architecture(name, options, INPUT, CLASSES)
    for seed in range(2):
        params, source = network(architecture, seed), generator(100 + seed)
        permutations, scales = random_permutations(architecture.space, source), random_scales(architecture.space, source)
        assert change(architecture, params, permutations, {}) < 1e-10
        assert change(architecture, params, {}, scales) < 1e-10
        assert change(architecture, params, permutations, scales) < 1e-10


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_what_is_declared_is_what_is_expected(name, options):
    space = build_architecture(name, options, INPUT, CLASSES).space
    per_activation = {
        "linear": "any",
        "relu": "positive",
        "leaky_relu": "positive",
        "tanh": "sign",
        "gelu": "none",
        "silu": "none",
    }
    mixed = options["norm"] == "group" and options["norm_groups"] == 2
    for group_name, group in space.groups.items():
        hidden = group_name not in ("x", "y")
        assert group.permutable == (hidden and not mixed)
        assert group.scaling == (per_activation[options["activation"]] if hidden and options["norm"] == "none" else "none")


def test_one_channel_in_each_group_of_a_group_norm_is_permutable():
    architecture = cnn(INPUT, CLASSES, (4, 4), norm="group", norm_groups=4)
    assert architecture.space.groups["c1"].permutable
    permutations = random_permutations(architecture.space, generator(0))
    assert change(architecture, network(architecture, 0), permutations, {}) < 1e-10


@pytest.mark.parametrize(
    ("architecture", "permutations", "scales"),
    [
        (cnn(INPUT, CLASSES, (4, 4), norm="group", norm_groups=2), {"c1": torch.tensor([2, 0, 1, 3])}, {}),
        (mlp(INPUT, CLASSES, (5,)), {"y": torch.tensor([1, 2, 0])}, {}),
        (mlp(INPUT, CLASSES, (5,)), {"x": torch.arange(98).roll(1)}, {}),
        (mlp(INPUT, CLASSES, (5,)), {}, {"h1": -torch.ones(5, dtype=torch.float64)}),
        (mlp(INPUT, CLASSES, (5,), activation="tanh"), {}, {"h1": torch.full((5,), 2.0, dtype=torch.float64)}),
        (mlp(INPUT, CLASSES, (5,), activation="gelu"), {}, {"h1": torch.full((5,), 2.0, dtype=torch.float64)}),
        (mlp(INPUT, CLASSES, (5,), norm="layer"), {}, {"h1": torch.arange(1.0, 6.0, dtype=torch.float64)}),
    ],
    ids=["norm groups", "outputs", "inputs", "relu signs", "tanh scales", "gelu scales", "norm scales"],
)
def test_the_check_sees_what_is_no_symmetry(architecture, permutations, scales):
    assert change(architecture, network(architecture, 0), permutations, scales) > 1e-3


# asymmetric networks


@pytest.mark.parametrize(("name", "kind"), list(product(ARCHITECTURES, ASYMMETRIES)))
def test_asymmetric_spaces_declare_no_symmetry(name, kind):
    architecture = make_asymmetric(build_architecture(name, {}, INPUT, CLASSES), kind, {}, 0)
    assert not any(group.permutable for group in architecture.space.groups.values())
    assert {group.scaling for group in architecture.space.groups.values()} == {"none"}


@pytest.mark.parametrize(("name", "activation"), list(product(["mlp", "cnn"], ["relu", "leaky_relu", "tanh", "linear"])))
def test_entries_fixed_at_zero_leave_the_scalings_and_take_the_permutations(name, activation):
    standard = build_architecture(name, {"activation": activation}, INPUT, CLASSES)
    architecture = w_asymmetric(standard, generator(0), kappa=0.0)
    assert not any(group.permutable for group in architecture.space.groups.values())
    assert {n: g.scaling for n, g in architecture.space.groups.items()} == {
        n: g.scaling for n, g in standard.space.groups.items()
    }
    params = {key: tensor.double() for key, tensor in architecture.init(generator(1)).items()}
    scales = random_scales(architecture.space, generator(2))
    assert scales
    assert change(architecture, params, {}, scales) < 1e-10
    assert stays(architecture, act(architecture.space, params, {}, scales))


def test_only_groups_that_a_fixed_tensor_touches_lose_their_symmetry():
    amounts = {"layers.0.weight": 2, "layers.1.weight": 0, "layers.2.weight": 0, "layers.3.weight": 0}
    architecture = w_asymmetric(mlp(INPUT, CLASSES, (4, 4, 4)), generator(0), n_fix=amounts)
    assert {name: group.permutable for name, group in architecture.space.groups.items()} == {
        "x": False,
        "h1": False,
        "h2": True,
        "h3": True,
        "y": False,
    }
    assert [architecture.space.groups[name].scaling for name in ("h1", "h2")] == ["none", "positive"]
    params, source = network(architecture, 0), generator(1)
    permutations, scales = random_permutations(architecture.space, source), random_scales(architecture.space, source)
    assert change(architecture, params, permutations, scales) < 1e-10
    assert stays(architecture, act(architecture.space, fixed_in(architecture, params), permutations, scales))


def fixed_in(architecture: Architecture, params):
    return {
        name: tensor.where(architecture.free[name], architecture.constants[f"fixed.{name}"])
        if name in architecture.free
        else tensor
        for name, tensor in params.items()
    }


def stays(architecture: Architecture, params) -> bool:
    """Whether effective params have the fixed entries that all networks of the population have."""
    return all(
        torch.equal(params[name][~mask], architecture.constants[f"fixed.{name}"][~mask].to(params[name].dtype))
        for name, mask in architecture.free.items()
    )


TINY = {
    "mlp": (mlp((5,), 3, (4,)), {"n_fix": 2}, {"h1": 4}),
    "deep mlp": (mlp((4,), 3, (3, 3)), {"n_fix": 1}, {"h1": 3, "h2": 3}),
    "cnn entries": (cnn((1, 5, 5), 3, (3, 3)), {"n_fix": 1}, {"c1": 3, "c2": 3}),
    "cnn filters": (cnn((3, 5, 5), 3, (3, 3)), {"n_fix": 1, "fix": "filters"}, {"c1": 3, "c2": 3}),
    "flattened": (cnn((1, 3, 3), 3, (4,), pool="flatten"), {"n_fix": 2}, {"c1": 4}),
}


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.parametrize(("standard", "options", "sizes"), TINY.values(), ids=TINY)
def test_no_permutation_maps_a_w_asymmetric_network_onto_one_of_its_population(standard, options, sizes, kappa):
    architecture = w_asymmetric(standard, generator(0), kappa=kappa, **options)
    params = architecture.init(generator(1))
    assert stays(architecture, params)
    tried = 0
    for permutations in all_permutations_but_identity(sizes):
        moved = act(architecture.space, params, permutations, {})
        assert not stays(architecture, moved), permutations
        tried += 1
    assert tried == count_permutations(sizes) - 1


def test_no_permutation_is_a_symmetry_of_a_sigma_asymmetric_network():
    standard = mlp(INPUT, CLASSES, (4,))
    architecture = sigma_asymmetric(standard, generator(0))
    for permutations in all_permutations_but_identity({"h1": 4}):
        assert change(architecture, network(architecture, 0), permutations, {}) > 1e-6
        assert change(standard, network(standard, 0), permutations, {}) < 1e-10
