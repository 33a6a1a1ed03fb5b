"""The symmetry that a space declares is one of the function; asymmetric kinds take it away."""

import re
from dataclasses import replace
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
from tests.zoo.instances import INPUTS, instance
from zoo.architectures import (
    ACTIVATIONS,
    ARCHITECTURES,
    ASYMMETRIES,
    Architecture,
    build_architecture,
    build_cnn,
    build_mlp,
    build_resnet,
    make_asymmetric,
    sigma_asymmetric,
    w_asymmetric,
)
from zoo.weight_space import NeuronGroup, WeightSpace

INPUT, CLASSES = (2, 7, 7), 3
OPTIONS = [
    ("mlp", {"hidden": (6, 5), "activation": activation, "norm": norm})
    for activation, norm in product(ACTIVATIONS, ["none", "layer"])
] + [
    (
        "cnn",
        {
            "channels": (4, 6),
            "activation": activation,
            "norm": norm,
            "norm_groups": groups,
            "pool": pool,
        },
    )
    for activation in ACTIVATIONS
    for norm, groups, pool in [
        ("none", 2, "average"),
        ("none", 2, "flatten"),
        ("layer", 2, "average"),
        ("group", 1, "flatten"),
        ("group", 2, "flatten"),
        ("group", 2, "average"),
    ]
]
RESNET_OPTIONS = [
    ("resnet", {"channels": (4, 5, 3), "activation": activation, "norm": norm, "depth": depth})
    for activation, norm, depth in product(ACTIVATIONS, ["batch", "layer", "none"], [8, 14])
]
OTHER_OPTIONS = (
    [
        ("transformer", {"patch": 7, "dim": 6, "heads": 3, "activation": activation})
        for activation in ACTIVATIONS
    ]
    + [("transformer", {"patch": 1, "dim": 4, "heads": heads, "depth": 1}) for heads in (1, 2, 4)]
    + [
        ("gin", {"hidden": 4, "activation": activation, "norm": norm, "pool": pool})
        for (activation, norm), pool in zip(
            product(ACTIVATIONS, ["none", "layer"]), ["mean", "sum"] * 7, strict=True
        )
    ]
    + [("siren", {"hidden": (6, 5), "omega": omega}) for omega in (1.0, 30.0)]
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
    """A network with nothing special about it: norms neither 1 nor 0, variances positive."""
    source = generator(seed)
    params = architecture.init(source)
    moved = {
        name: tensor.double() + 0.3 * torch.randn(tensor.shape, generator=source)
        for name, tensor in params.items()
    }
    return {
        name: tensor.abs() + 0.1 if name.endswith("running_var") else tensor
        for name, tensor in moved.items()
    }


def change(architecture: Architecture, params, permutations, scales) -> float:
    """How far the logits move when the params are acted on."""
    x = torch.randn(5, *INPUT, dtype=torch.float64, generator=generator(0))
    architecture = architecture.to("cpu", torch.float64)
    moved = act(architecture.space, params, permutations, scales)
    return float((architecture.apply(moved, x) - architecture.apply(params, x)).abs().max())


def permute(architecture: Architecture, group: str) -> dict[str, torch.Tensor]:
    return {group: torch.arange(architecture.space.groups[group].size).roll(1)}


# standard networks


@pytest.mark.parametrize(("name", "options"), OPTIONS + RESNET_OPTIONS + OTHER_OPTIONS, ids=str)
def test_declared_permutations_and_scales_leave_the_function_alone(name, options):
    architecture = build_architecture(name, options, INPUT, CLASSES)
    for seed in range(2):
        params, source = network(architecture, seed), generator(100 + seed)
        permutations, scales = (
            random_permutations(architecture.space, source),
            random_scales(architecture.space, source),
        )
        assert change(architecture, params, permutations, {}) < 1e-10
        assert change(architecture, params, {}, scales) < 1e-10
        assert change(architecture, params, permutations, scales) < 1e-10


PER_ACTIVATION = {
    "linear": "any",
    "relu": "positive",
    "leaky_relu": "positive",
    "tanh": "sign",
    "sine": "sign",
    "gelu": "none",
    "silu": "none",
}


@pytest.mark.parametrize(("name", "options"), OPTIONS + RESNET_OPTIONS, ids=str)
def test_what_is_declared_is_what_is_expected(name, options):
    space = build_architecture(name, options, INPUT, CLASSES).space
    scaling = PER_ACTIVATION[options["activation"]]
    blocks = {"g1", "g2"} if options["norm"] == "group" and options["norm_groups"] == 2 else set()
    assert set(space.groups) >= blocks
    for group_name, group in space.groups.items():
        hidden = group_name not in ("x", "y")
        assert group.permutable == hidden
        assert group.scaling == (scaling if hidden and group_name not in blocks else "none")
        assert group.activation == (
            options["activation"] if hidden and group_name not in blocks else "linear"
        )
    zeros = any("^0" in text for text in space.tensors.values())
    assert zeros == (options["norm"] != "none" and scaling != "none")


def test_what_transformers_declare():
    space = build_architecture(
        "transformer", {"dim": 6, "heads": 3, "depth": 1, "activation": "relu"}, (2, 8, 4), CLASSES
    ).space
    assert {
        name: (group.size, group.permutable, group.scaling) for name, group in space.groups.items()
    } == {
        "x": (2, False, "none"),
        "d": (6, True, "any"),
        "head1": (3, True, "none"),
        "qk1": (2, True, "any"),
        "v1": (2, True, "any"),
        "m1": (12, True, "positive"),
        "y": (3, False, "none"),
    }
    assert space.tensors["embed.weight"] == "d^0 <- x 4 4"
    assert space.tensors["position.weight"] == "2 d^0"
    assert space.tensors["blocks.0.q.weight"] == "(head1 qk1) <- d"
    assert space.tensors["blocks.0.k.weight"] == "(head1 qk1^-1) <- d"
    assert space.tensors["blocks.0.out.weight"] == "d^0 <- (head1 v1)"


def test_a_gate_leaves_attention_and_the_stream_of_a_transformer_their_symmetry():
    architecture = sigma_asymmetric(instance("transformer"), generator(0)).to("cpu", torch.float64)
    alike = {name for name, group in architecture.space.groups.items() if group.permutable}
    assert alike == {"d", "head1", "qk1", "v1", "head2", "qk2", "v2"}
    assert {
        name for name, group in architecture.space.groups.items() if group.scaling == "any"
    } == alike - {"head1", "head2"}
    params, source = network(architecture, 0), generator(1)
    permutations, scales = (
        random_permutations(architecture.space, source),
        random_scales(architecture.space, source),
    )
    x = torch.randn(5, *INPUTS["transformer"], dtype=torch.float64, generator=source)
    moved = act(architecture.space, params, permutations, scales)
    assert (architecture.apply(moved, x) - architecture.apply(params, x)).abs().max() < 1e-10


def test_norm_groups_are_blocks_of_channels():
    space = build_cnn(INPUT, CLASSES, (6, 4), norm="group", norm_groups=2, pool="flatten").space
    assert space.tensors["convs.0.weight"] == "(g1 c1^0) <- x 3 3"
    assert space.tensors["norms.0.weight"] == "(g1 c1)"
    assert space.tensors["convs.1.weight"] == "(g2 c2^0) <- (g1 c1) 3 3"
    assert space.tensors["classifier.weight"] == "y <- (g2 c2 4)"
    assert [space.groups[name].size for name in ("g1", "c1", "g2", "c2")] == [2, 3, 2, 2]


def test_one_channel_in_each_group_of_a_group_norm_is_permutable():
    architecture = build_cnn(INPUT, CLASSES, (4, 4), norm="group", norm_groups=4)
    assert architecture.space.groups["c1"].permutable
    permutations = random_permutations(architecture.space, generator(0))
    assert change(architecture, network(architecture, 0), permutations, {}) < 1e-10


def as_one_group(architecture: Architecture) -> Architecture:
    """The space that would say of a GroupNorm that all channels may be exchanged; no zoo does."""
    groups = {
        name: NeuronGroup(4, activation="relu") if name.startswith("c") else g
        for name, g in architecture.space.groups.items()
    }
    tensors = {
        name: re.sub(r"g\d |\^0", "", text) for name, text in architecture.space.tensors.items()
    }
    return replace(architecture, space=WeightSpace(groups, tensors))


def without_powers(architecture: Architecture) -> Architecture:
    """The space that would say that what is before a norm scales too."""
    tensors = {name: text.replace("^0", "") for name, text in architecture.space.tensors.items()}
    return replace(architecture, space=WeightSpace(architecture.space.groups, tensors))


@pytest.mark.parametrize(
    ("architecture", "permutations", "scales"),
    [
        (
            as_one_group(build_cnn(INPUT, CLASSES, (4, 4), norm="group", norm_groups=2)),
            {"c1": torch.tensor([2, 0, 1, 3])},
            {},
        ),
        (build_mlp(INPUT, CLASSES, (5,)), {"y": torch.tensor([1, 2, 0])}, {}),
        (build_mlp(INPUT, CLASSES, (5,)), {"x": torch.arange(98).roll(1)}, {}),
        (build_mlp(INPUT, CLASSES, (5,)), {}, {"h1": -torch.ones(5, dtype=torch.float64)}),
        (
            build_mlp(INPUT, CLASSES, (5,), activation="tanh"),
            {},
            {"h1": torch.full((5,), 2.0, dtype=torch.float64)},
        ),
        (
            build_mlp(INPUT, CLASSES, (5,), activation="gelu"),
            {},
            {"h1": torch.full((5,), 2.0, dtype=torch.float64)},
        ),
        (
            without_powers(build_mlp(INPUT, CLASSES, (5,), norm="layer")),
            {},
            {"h1": torch.arange(1.0, 6.0, dtype=torch.float64)},
        ),
        (
            without_powers(build_resnet(INPUT, CLASSES, channels=(4, 4, 4))),
            {},
            {"h2": torch.full((4,), 2.0, dtype=torch.float64)},
        ),
    ],
    ids=[
        "norm groups",
        "outputs",
        "inputs",
        "relu signs",
        "tanh scales",
        "gelu scales",
        "norm scales",
        "statistics",
    ],
)
def test_the_check_sees_what_is_no_symmetry(architecture, permutations, scales):
    assert change(architecture, network(architecture, 0), permutations, scales) > 1e-3


# asymmetric networks


@pytest.mark.parametrize(
    ("name", "kind"),
    [pair for pair in product(ARCHITECTURES, ASYMMETRIES) if pair != ("transformer", "sigma")],
)
def test_asymmetric_spaces_declare_no_symmetry(name, kind):
    architecture = make_asymmetric(instance(name), kind, {}, 0)
    assert not any(group.permutable for group in architecture.space.groups.values())
    assert {group.scaling for group in architecture.space.groups.values()} == {"none"}


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "linear"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "transformer"])
def test_entries_fixed_at_zero_leave_the_scalings_and_take_the_permutations(name, activation):
    options = {"activation": activation} | ({"patch": 7, "dim": 8} if name == "transformer" else {})
    standard = build_architecture(name, options, INPUT, CLASSES)
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
    amounts = {
        "layers.0.weight": 2,
        "layers.1.weight": 0,
        "layers.2.weight": 0,
        "layers.3.weight": 0,
    }
    architecture = w_asymmetric(build_mlp(INPUT, CLASSES, (4, 4, 4)), generator(0), n_fix=amounts)
    assert {name: group.permutable for name, group in architecture.space.groups.items()} == {
        "x": False,
        "h1": False,
        "h2": True,
        "h3": True,
        "y": False,
    }
    assert [architecture.space.groups[name].scaling for name in ("h1", "h2")] == [
        "none",
        "positive",
    ]
    params, source = network(architecture, 0), generator(1)
    permutations, scales = (
        random_permutations(architecture.space, source),
        random_scales(architecture.space, source),
    )
    assert change(architecture, params, permutations, scales) < 1e-10
    assert stays(
        architecture, act(architecture.space, fixed_in(architecture, params), permutations, scales)
    )


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
        torch.equal(
            params[name][~mask],
            architecture.constants[f"fixed.{name}"][~mask].to(params[name].dtype),
        )
        for name, mask in architecture.free.items()
    )


TINY = {
    "mlp": (build_mlp((5,), 3, (4,)), {"n_fix": 2}, {"h1": 4}),
    "deep mlp": (build_mlp((4,), 3, (3, 3)), {"n_fix": 1}, {"h1": 3, "h2": 3}),
    "cnn entries": (build_cnn((1, 5, 5), 3, (3, 3)), {"n_fix": 1}, {"c1": 3, "c2": 3}),
    "cnn filters": (
        build_cnn((3, 5, 5), 3, (3, 3)),
        {"n_fix": 1, "fix": "filters"},
        {"c1": 3, "c2": 3},
    ),
    "flattened": (build_cnn((1, 3, 3), 3, (4,), pool="flatten"), {"n_fix": 2}, {"c1": 4}),
}


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.parametrize(("standard", "options", "sizes"), TINY.values(), ids=TINY)
def test_no_permutation_maps_a_w_asymmetric_network_onto_one_of_its_population(
    standard, options, sizes, kappa
):
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
    standard = build_mlp(INPUT, CLASSES, (4,))
    architecture = sigma_asymmetric(standard, generator(0))
    for permutations in all_permutations_but_identity({"h1": 4}):
        assert change(architecture, network(architecture, 0), permutations, {}) > 1e-6
        assert change(standard, network(standard, 0), permutations, {}) < 1e-10
