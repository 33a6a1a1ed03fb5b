"""The laws that users get hold for what is good: architectures, functions, random spaces."""

import pytest
import torch

from tests.zoo.instances import INPUTS, instance
from tests.zoo.testing.networks import INPUT, X, generator
from zoo.architectures import ARCHITECTURES, ASYMMETRIES, build_mlp, make_asymmetric
from zoo.params import batch_shape
from zoo.pattern import Sum
from zoo.testing import (
    LAWS,
    assert_function_preserved,
    check_architecture,
    random_params,
    random_weight_space,
)
from zoo.weight_space import NeuronGroup, WeightSpace


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_of_the_table_keeps_the_laws(name):
    inputs = torch.randn(5, *INPUTS[name], generator=generator(0))
    assert check_architecture(instance(name), inputs) == list(LAWS)


@pytest.mark.parametrize("kind", ASYMMETRIES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_asymmetric_twins_keep_them_too(name, kind):
    inputs = torch.randn(5, *INPUTS[name], generator=generator(0))
    check_architecture(make_asymmetric(instance(name), kind, {}, 0), inputs)


def test_options_of_a_builder_are_passed_on():
    assert check_architecture("mlp", hidden=(3,)) == list(LAWS)
    check_architecture("cnn", X[:, :1], 4, channels=(4, 8), norm="group", pool="flatten")
    with pytest.raises(ValueError, match="unknown option 'depth' of architecture 'mlp'"):
        check_architecture("mlp", depth=3)


def test_an_architecture_comes_with_inputs_and_without_options():
    architecture = build_mlp(INPUT, 3)
    check_architecture(architecture, X)
    for options in ({}, {"inputs": X, "hidden": (3,)}):
        with pytest.raises(ValueError, match="expected an architecture with inputs and no options"):
            check_architecture(architecture, **options)


def test_outputs_may_be_any_tree_and_params_single_precision():
    architecture = build_mlp(INPUT, 3, (4, 4))
    params = architecture.init(generator(0))
    for wrap in (lambda y: y, lambda y: (y, [y]), lambda y: {"logits": y, "cache": None}):
        assert_function_preserved(
            architecture.space, lambda p, wrap=wrap: wrap(architecture.apply(p, X)), params
        )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite_prove_nothing(bad):
    space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    with pytest.raises(AssertionError, match="not finite before anything moves"):
        assert_function_preserved(space, lambda p: p["bias"] + bad, {"bias": torch.zeros(3)})


def test_many_networks_at_once():
    space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    params = random_params(space, generator(0), (2, 5))
    assert_function_preserved(space, lambda p: p["bias"].sum(-1), params)
    with pytest.raises(AssertionError, match="group 'h' declares permutations"):
        assert_function_preserved(space, lambda p: p["bias"].cumsum(-1), params)


def test_random_spaces_cover_the_language():
    spaces = [random_weight_space(generator(seed)) for seed in range(100)]
    patterns = [space.pattern(name) for space in spaces for name in space.tensors]
    texts = [text for space in spaces for text in space.tensors.values()]
    assert any(pattern.read_first for pattern in patterns)
    assert any(
        isinstance(factor, Sum) for pattern in patterns for axis in pattern.axes for factor in axis
    )
    assert any(len(axis) > 1 for pattern in patterns for axis in pattern.axes)
    for part in ("^2", "^0", "^-1", "h1 <- h1", " 2 2"):
        assert any(part in text for text in texts), part
    assert "" in texts
    declared = {
        (group.permutable, group.scaling) for space in spaces for group in space.groups.values()
    }
    assert len(declared) == 8
    assert {group.size for space in spaces for group in space.groups.values()} == {1, 2, 3, 4}
    assert len({space.fingerprint for space in spaces}) > 90


def test_random_spaces_and_params_come_from_their_generator():
    before = torch.get_rng_state()
    first, again = random_weight_space(generator(1), 2), random_weight_space(generator(1), 2)
    assert first == again
    assert max(group.size for group in first.groups.values()) <= 2
    params, same = (random_params(first, generator(2), (3, 2), torch.float32) for _ in range(2))
    assert batch_shape(first, params) == (3, 2)
    assert all(
        torch.equal(params[name], same[name]) and params[name].dtype == torch.float32
        for name in first.tensors
    )
    assert torch.equal(before, torch.get_rng_state())
