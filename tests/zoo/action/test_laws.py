"""The group action: an oracle, its laws over random spaces and architectures."""

import pytest
import torch
from hypothesis import given

from tests.reference import zoo_orbit
from tests.reference.zoo_spaces import Case
from tests.zoo.action.elements import (
    assert_same,
    batches,
    elements,
    generator,
    params_of,
    seeds,
    spaces,
)
from tests.zoo.instances import INPUTS, instance
from zoo.architectures import ARCHITECTURES, ASYMMETRIES, Architecture, make_asymmetric
from zoo.symmetry.action import GroupElement, act, compose, identity, inverse, orbit_ids, sample
from zoo.symmetry.residual import max_output_change
from zoo.testing import random_weight_space
from zoo.weight_space import NeuronGroup, WeightSpace


@given(spaces, seeds)
def test_the_action_is_what_the_text_of_the_patterns_says(case: Case, seed):
    (element,) = elements(case.space, seed, 1)
    params = params_of(case.space, seed + 1)
    expected = zoo_orbit.act(case.space, params, element.permutations, element.scales)
    assert_same(act(case.space, element, params), expected)


@given(seeds)
def test_the_action_on_the_random_spaces_that_users_get(seed):
    space = random_weight_space(generator(seed), max_size=3)
    element, params = sample(space, generator(seed)), params_of(space, seed + 1)
    assert_same(
        act(space, element, params),
        zoo_orbit.act(space, params, element.permutations, element.scales),
    )


@pytest.mark.parametrize(
    ("text", "tensor", "expected"),
    [
        ("h", [1, 2, 3], [30, 100, 2000]),
        ("<- h", [1, 2, 3], [0.3, 0.01, 0.002]),
        ("h^2", [1, 2, 3], [300, 1e4, 2e6]),
        ("h^0", [1, 2, 3], [3, 1, 2]),
        ("(h 2)", [1, 2, 3, 4, 5, 6], [50, 60, 100, 200, 3000, 4000]),
        ("(2 h)", [1, 2, 3, 4, 5, 6], [30, 100, 2000, 60, 400, 5000]),
        ("(2 + h)", [8, 9, 1, 2, 3], [8, 9, 30, 100, 2000]),
        ("h <- h", [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[9, 0.7, 0.08], [30, 1, 0.2], [600, 40, 5]]),
        ("2 -> h", [[1, 2, 3], [4, 5, 6]], [[30, 100, 2000], [60, 400, 5000]]),
        ("h -> 2", [[1, 2], [3, 4], [5, 6]], [[0.5, 0.6], [0.01, 0.02], [0.003, 0.004]]),
        ("", 7.0, 7.0),
    ],
)
def test_examples_of_the_action(text, tensor, expected):
    space = WeightSpace({"h": NeuronGroup(3, scaling="any")}, {"t": text})
    scales = torch.tensor([10, 100, 1000], dtype=torch.float64)
    element = GroupElement({"h": torch.tensor([2, 0, 1])}, {"h": scales})
    moved = act(space, element, {"t": torch.tensor(tensor, dtype=torch.float64)})
    torch.testing.assert_close(moved["t"], torch.tensor(expected, dtype=torch.float64))


@given(spaces, seeds, batches)
def test_the_identity_changes_nothing(case: Case, seed, batch):
    params = params_of(case.space, seed, batch)
    assert_same(act(case.space, identity(case.space), params), params)
    assert_same(act(case.space, GroupElement({}, {}), params), params)
    assert (
        identity(case.space, batch).permutations.keys()
        == sample(case.space, generator(0)).permutations.keys()
    )


@given(spaces, seeds, batches)
def test_acting_twice_is_acting_with_the_product(case: Case, seed, batch):
    first, second = elements(case.space, seed, 2, batch)
    params = params_of(case.space, seed)
    assert_same(
        act(case.space, compose(first, second), params),
        act(case.space, first, act(case.space, second, params)),
    )


@given(spaces, seeds, batches)
def test_the_inverse_undoes(case: Case, seed, batch):
    (element,) = elements(case.space, seed, 1, batch)
    params = params_of(case.space, seed, batch)
    assert_same(act(case.space, inverse(element), act(case.space, element, params)), params)
    assert_same(act(case.space, element, act(case.space, inverse(element), params)), params)
    assert_same(act(case.space, compose(element, inverse(element)), params), params)


@given(spaces, seeds, batches)
def test_products_are_associative(case: Case, seed, batch):
    a, b, c = elements(case.space, seed, 3, batch)
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    for name in right.permutations:
        assert torch.equal(left.permutations[name], right.permutations[name])
    assert left.permutations.keys() == right.permutations.keys()
    assert left.scales.keys() == right.scales.keys()
    for name in right.scales:
        torch.testing.assert_close(left.scales[name], right.scales[name], rtol=1e-12, atol=0)


@given(spaces, seeds)
def test_the_inverse_of_a_product_is_the_product_of_the_inverses(case: Case, seed):
    a, b = elements(case.space, seed, 2)
    params = params_of(case.space, seed)
    reversed_ = compose(inverse(b), inverse(a))
    assert_same(act(case.space, inverse(compose(a, b)), params), act(case.space, reversed_, params))


@given(spaces, seeds)
def test_orbit_ids_are_what_permutations_cannot_tell_apart(case: Case, seed):
    ids, space = orbit_ids(case.space), case.space
    assert {name: len(of_group) for name, of_group in ids.items()} == {
        name: group.size for name, group in space.groups.items()
    }
    counts = [len(of_group.unique()) for of_group in ids.values()]
    expected = [1 if group.permutable else group.size for group in space.groups.values()]
    assert counts == expected
    assert torch.cat(list(ids.values())).unique().tolist() == list(range(sum(expected)))
    for name, permutation in sample(space, generator(seed)).permutations.items():
        assert torch.equal(ids[name][permutation], ids[name])


def architectures() -> dict[str, Architecture]:
    standard = {name: instance(name) for name in ARCHITECTURES}
    twins = {
        f"{name}, {kind}": make_asymmetric(standard[name], kind, {}, 0)
        for name in standard
        for kind in ASYMMETRIES
    }
    return (
        standard
        | twins
        | {"mlp, kappa 0": make_asymmetric(standard["mlp"], "w", {"kappa": 0.0}, 0)}
    )


ALL = architectures()


@pytest.mark.parametrize("name", ALL)
def test_the_function_of_an_architecture_is_preserved(name):
    architecture, source = ALL[name].to("cpu", torch.float64), generator(0)
    x = torch.randn(4, *INPUTS[name.split(",")[0]], generator=source, dtype=torch.float64)
    params = {
        n: t.double() + 0.05 * torch.randn(t.shape, generator=source)
        for n, t in architecture.init(source).items()
    }
    assert (
        max_output_change(architecture.space, lambda p: architecture.apply(p, x), params, source)
        < 1e-10
    )


@pytest.mark.parametrize("architecture", ALL.values(), ids=ALL)
def test_the_laws_hold_on_the_space_of_an_architecture(architecture: Architecture):
    space, params = architecture.space, params_of(architecture.space, 0, (2,))
    a, b = elements(space, 1, 2, (2,))
    assert_same(act(space, compose(a, b), params), act(space, a, act(space, b, params)))
    assert_same(act(space, inverse(a), act(space, a, params)), params)
