"""One element or many act on one network or many."""

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.zoo_spaces import Case
from tests.zoo.action.elements import assert_same, elements, generator, params_of, seeds, spaces
from zoo.params import flatten, unflatten
from zoo.symmetry.action import GroupElement, act, sample


@given(spaces, seeds, st.tuples(st.integers(1, 3), st.integers(1, 2)))
def test_many_elements_on_many_networks_are_a_loop(case: Case, seed, batch):
    element, params = sample(case.space, generator(seed), batch), params_of(case.space, seed, batch)
    together = act(case.space, element, params)
    for place in product(*map(range, batch)):
        one = GroupElement(
            {n: v[place] for n, v in element.permutations.items()},
            {n: v[place] for n, v in element.scales.items()},
        )
        alone = act(case.space, one, {name: tensor[place] for name, tensor in params.items()})
        assert_same({name: tensor[place] for name, tensor in together.items()}, alone)


@given(spaces, seeds)
def test_one_network_under_many_elements_and_many_networks_under_one(case: Case, seed):
    many, (one,) = sample(case.space, generator(seed), (3,)), elements(case.space, seed, 1)
    params = params_of(case.space, seed)
    repeated = {name: tensor.expand(3, *tensor.shape) for name, tensor in params.items()}
    moved = {
        name: tensor.expand(repeated[name].shape)
        for name, tensor in act(case.space, many, params).items()
    }
    assert_same(moved, act(case.space, many, repeated))
    alone = act(case.space, one, params)
    assert_same(
        act(case.space, one, repeated), {n: t.expand(3, *t.shape) for n, t in alone.items()}
    )


@given(spaces, seeds, st.integers(1, 3))
def test_channels_of_features_move_together(case: Case, seed, channels):
    features, element = (
        params_of(case.space, seed, (2, channels)),
        sample(case.space, generator(seed), (2, 1)),
    )
    moved = act(case.space, element, features)
    squeezed = GroupElement(
        {n: v[:, 0] for n, v in element.permutations.items()},
        {n: v[:, 0] for n, v in element.scales.items()},
    )
    for channel in range(channels):
        alone = act(
            case.space, squeezed, {name: tensor[:, channel] for name, tensor in features.items()}
        )
        assert_same({name: tensor[:, channel] for name, tensor in moved.items()}, alone)


@given(spaces, seeds)
def test_flat_params_move_by_one_permutation_and_one_scale_for_each_entry(case: Case, seed):
    space, (element,) = case.space, elements(case.space, seed, 1)
    numbers = unflatten(space, torch.arange(space.num_params, dtype=torch.float64))
    order = flatten(space, act(space, GroupElement(element.permutations, {}), numbers)).long()
    scale = flatten(
        space,
        act(
            space,
            GroupElement({}, element.scales),
            unflatten(space, torch.ones(space.num_params).double()),
        ),
    )
    assert sorted(order.tolist()) == list(range(space.num_params))
    params = params_of(space, seed, (2,))
    torch.testing.assert_close(
        flatten(space, act(space, element, params)), scale * flatten(space, params)[:, order]
    )
    assert_same(
        unflatten(space, scale * flatten(space, params)[:, order]), act(space, element, params)
    )
