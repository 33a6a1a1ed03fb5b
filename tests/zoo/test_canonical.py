"""Canonical form: one point for each orbit, reached by a symmetry."""

import itertools

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.reference.zoo_spaces import Case, cases, rich_cases
from tests.zoo.instances import INPUTS, instance
from zoo.architectures import (
    ACTIVATIONS,
    ARCHITECTURES,
    Architecture,
    build_architecture,
    build_mlp,
)
from zoo.params import Params, batch_shape
from zoo.symmetry.action import GroupElement, act, sample
from zoo.symmetry.balance import balancing_scales
from zoo.symmetry.blocks import cut_blocks
from zoo.symmetry.canonical import canonical_element, canonicalize
from zoo.weight_space import NeuronGroup, WeightSpace

seeds = st.integers(0, 2**32)


def normal(space: WeightSpace, seed: int, batch=(), dtype=torch.float64) -> Params:
    """Entries `~ N(0, 1)`: generic with probability 1."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn((*batch, *s), generator=generator, dtype=dtype)
        for name, s in space.shapes.items()
    }


def element(space: WeightSpace, seed: int, batch=()) -> GroupElement:
    return sample(space, torch.Generator().manual_seed(seed), batch)


def assert_close(one: Params, other: Params, tolerance: float = 1e-10):
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def is_generic(space: WeightSpace, params: Params) -> bool:
    """Whether more than signs is left of entries; if scales make all 1 or -1, neurons tie."""
    if all(group.scaling in ("none", "positive") for group in space.groups.values()):
        return True
    sizes = [
        tensor.abs().reshape(len(tensor), -1).sort(-1).values.diff(dim=-1)
        for tensor in params.values()
    ]
    return all(bool((size > 1e-9).all()) for size in sizes)


# the laws of a canonical form


@given(rich_cases() | cases(), seeds)
def test_the_canonical_form_is_constant_on_orbits_and_idempotent(case: Case, seed):
    space = case.space
    params = normal(space, seed, (3,))
    once = canonicalize(space, params)
    assume(is_generic(space, once))
    assert_close(once, canonicalize(space, act(space, element(space, seed, (3,)), params)))
    assert_close(once, canonicalize(space, once))


@given(rich_cases(), seeds)
def test_it_is_reached_by_a_symmetry_of_the_space(case: Case, seed):
    space = case.space
    params = normal(space, seed, (2, 3))
    element, lead = canonical_element(space, params), batch_shape(space, params)
    assert_close(act(space, element, params), canonicalize(space, params), 0)
    groups = space.groups.items()
    assert set(element.permutations) == {name for name, group in groups if group.permutable}
    assert set(element.scales) == {name for name, group in groups if group.scaling != "none"}
    for name, group in groups:
        if group.permutable:
            assert torch.equal(
                element.permutations[name].sort(-1).values,
                torch.arange(group.size).expand(*lead, -1),
            )
        if group.scaling != "none":
            scales = element.scales[name]
            assert scales.shape == (*lead, group.size)
            assert bool(scales.isfinite().all() & (scales != 0).all())
            assert group.scaling != "positive" or bool((scales > 0).all())
            assert group.scaling != "sign" or bool((scales.abs() == 1).all())


@given(rich_cases(), seeds)
def test_a_batch_gives_what_its_networks_give_one_by_one(case: Case, seed):
    space = case.space
    params = normal(space, seed, (2, 2))
    together = canonicalize(space, params)
    for i, j in itertools.product(range(2), range(2)):
        alone = canonicalize(space, {name: tensor[i, j] for name, tensor in params.items()})
        assert_close({name: tensor[i, j] for name, tensor in together.items()}, alone)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_keep_their_function_and_lose_their_orbit(name):
    check_architecture(instance(name), INPUTS[name])


@pytest.mark.parametrize(
    ("name", "activation"), list(itertools.product(("mlp", "cnn"), ACTIVATIONS))
)
def test_networks_of_every_activation_do_so(name, activation):
    check_architecture(
        build_architecture(name, {"activation": activation}, (2, 7, 7), 3), (2, 7, 7)
    )


def check_architecture(architecture: Architecture, input_shape: tuple[int, ...]):
    space = architecture.space
    params = {
        name: tensor.double()
        for name, tensor in architecture.init(torch.Generator().manual_seed(0)).items()
    }
    noise = normal(space, 1)
    params = {
        n: t * noise[n].exp() if n.endswith("var") else t + 0.3 * noise[n]
        for n, t in params.items()
    }
    architecture = architecture.to("cpu", torch.float64)
    x = torch.randn(
        5, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    once = canonicalize(space, params)
    torch.testing.assert_close(
        architecture.apply(once, x), architecture.apply(params, x), rtol=1e-10, atol=1e-10
    )
    assert_close(once, canonicalize(space, act(space, element(space, 3), params)))
    assert_close(once, canonicalize(space, once))


def test_float32_networks_and_leading_axes_of_any_kind():
    space = build_mlp((8,), 4, (6, 5)).space
    params = normal(space, 0, (3, 2), torch.float32)
    once = canonicalize(space, params)
    assert {tensor.dtype for tensor in once.values()} == {torch.float32}
    assert_close(once, canonicalize(space, act(space, element(space, 1, (3, 2)), params)), 1e-5)
    none = canonical_element(space, {name: tensor[:0] for name, tensor in params.items()})
    assert {name: tuple(scale.shape) for name, scale in none.scales.items()} == {
        "h1": (0, 2, 6),
        "h2": (0, 2, 5),
    }


# what it looks like


def test_neurons_are_balanced_and_the_largest_come_first():
    """What keeps dead neurons finite may move living ones by a ten-thousandth, no more."""
    space = build_mlp((8,), 4, (6, 5)).space
    params = canonicalize(space, normal(space, 0, (10,)))
    for i in range(2):
        read = params[f"layers.{i + 1}.weight"].square().sum(-2)
        written = (
            params[f"layers.{i}.weight"].square().sum(-1) + params[f"layers.{i}.bias"].square()
        )
        torch.testing.assert_close(written, read, rtol=1e-4, atol=0)
        sizes = params[f"layers.{i}.weight"].abs().sum(-1) + params[
            f"layers.{i + 1}.weight"
        ].abs().sum(-2)
        assert bool((sizes[:, 0] > sizes[:, -1]).all())


def test_one_hidden_layer_is_balanced_by_the_fourth_root_of_a_quotient():
    """`s^2 (|w_in|^2 + b^2) = |w_out|^2 / s^2`, neuron by neuron."""
    space = build_mlp((8,), 4, (6,)).space
    params = normal(space, 0, (10,))
    read = params["layers.1.weight"].square().sum(1)
    written = params["layers.0.weight"].square().sum(2) + params["layers.0.bias"].square()
    scales = balancing_scales(space, params)
    assert set(scales) == {"h1"}
    torch.testing.assert_close(scales["h1"], (read / written) ** 0.25, rtol=1e-12, atol=0)


def test_the_balanced_point_has_the_least_norm_of_its_orbit():
    space = build_mlp((8,), 4, (6, 5)).space
    params = canonicalize(space, normal(space, 0))
    least = sum(float(tensor.square().sum()) for tensor in params.values())
    for seed in range(20):
        scales = {
            name: 1 + 0.1 * (scale - 1) for name, scale in element(space, seed).scales.items()
        }
        moved = act(space, GroupElement({}, scales), params)
        assert sum(float(tensor.square().sum()) for tensor in moved.values()) > least


def test_neurons_that_are_only_written_get_norm_one():
    space = WeightSpace(
        {"x": NeuronGroup(5, permutable=False), "c": NeuronGroup(3, scaling="positive")},
        {"conv.weight": "c <- x 3", "bn.running_mean": "c"},
    )
    params = canonicalize(space, normal(space, 0))
    norms = params["conv.weight"].square().sum((1, 2)) + params["bn.running_mean"].square()
    torch.testing.assert_close(norms, torch.ones(3, dtype=torch.float64))


def test_deep_networks_with_scales_far_apart():
    space = build_mlp((6,), 3, (7,) * 30).space
    params = normal(space, 0)
    far = GroupElement({}, {name: scale**8 for name, scale in element(space, 1).scales.items()})
    assert_close(canonicalize(space, params), canonicalize(space, act(space, far, params)), 1e-9)


# networks that are not generic


@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
def test_dead_neurons_do_no_harm(activation):
    space = build_mlp((8,), 4, (6, 5), activation).space
    params = normal(space, 0)
    params["layers.0.weight"][2], params["layers.0.bias"][2] = 0, 0  # nothing in
    params["layers.1.weight"][:, 4] = 0  # nothing out
    params["layers.1.weight"][3], params["layers.1.bias"][3], params["layers.2.weight"][:, 3] = (
        0,
        0,
        0,
    )  # nothing at all
    once = canonicalize(space, params)
    assert all(bool(tensor.isfinite().all()) for tensor in once.values())
    assert_close(once, canonicalize(space, act(space, element(space, 1), params)))
    assert_close(once, canonicalize(space, once))
    assert not once["layers.1.weight"][-1].any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_networks_of_equal_neurons_stay_finite(value):
    space = build_mlp((4,), 3, (5, 5)).space
    params = {
        name: torch.full(shape, value, dtype=torch.float64) for name, shape in space.shapes.items()
    }
    once = canonicalize(space, params)
    assert_close(once, canonicalize(space, act(space, element(space, 0), params)))


def test_binary_networks_are_told_apart_by_where_their_entries_are():
    space = build_mlp((6,), 3, (5, 4), "gelu").space
    params = {
        name: torch.where(tensor > 0, 1.0, 0.0).double()
        for name, tensor in normal(space, 3).items()
    }
    once = canonicalize(space, params)
    assert_close(once, canonicalize(space, act(space, element(space, 0), params)), 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_network_that_is_not_finite_is_refused(value):
    space = build_mlp((8,), 4, (6, 5)).space
    params = normal(space, 0, (3, 2))
    params["layers.1.weight"][1, 0, 2, 2] = value
    for function in (canonicalize, canonical_element, balancing_scales):
        with pytest.raises(ValueError, match=r"network 1, 0, tensor 'layers.1.weight': exp"):
            function(space, params)


def test_tensors_that_do_not_fit_are_refused_with_both_shapes():
    space = build_mlp((8,), 4, (6,)).space
    params = normal(space, 0) | {"layers.0.bias": torch.zeros(5)}
    with pytest.raises(
        ValueError, match=r"tensor 'layers.0.bias': expected shape \[\*batch, 6\], got \[5\]"
    ):
        canonicalize(space, params)


# the blocks that it works on


@given(rich_cases(), seeds)
def test_blocks_hold_every_entry_once_and_move_as_their_axes_say(case: Case, seed):
    space = case.space
    params, moving = normal(space, seed, (2,)), element(space, seed)
    moved = act(space, moving, params)
    count = {name: torch.zeros(shape) for name, shape in space.shapes.items()}
    for block in cut_blocks(space):
        block.view(count[block.tensor]).add_(1)
        expected = block.view(params[block.tensor])
        for axis, dim in enumerate(block.dims):
            if dim.group in moving.permutations:
                expected = expected.index_select(axis + 1, moving.permutations[dim.group])
            if dim.group in moving.scales:
                shape = (-1, *(1,) * (len(block.dims) - 1 - axis))
                expected = expected * (moving.scales[dim.group] ** dim.power).reshape(shape)
        torch.testing.assert_close(
            block.view(moved[block.tensor]), expected, rtol=1e-12, atol=1e-12
        )
    assert all(bool((tensor == 1).all()) for tensor in count.values())
