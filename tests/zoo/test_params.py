"""Params: packing, leading axes, the view of free entries."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.zoo_spaces import Case, cases, language_cases
from zoo.params import batch_shape, expand_right, flatten, free_entries, stack, unflatten
from zoo.weight_space import NeuronGroup, WeightSpace

batches = st.lists(st.integers(0, 3), max_size=3).map(tuple)
spaces = cases(min_tensors=1) | language_cases()
SPACE = WeightSpace({"h": NeuronGroup(3), "x": NeuronGroup(4)}, {"weight": "h <- x", "bias": "h"})


def counted(space: WeightSpace, batch: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Params whose entries are all different numbers."""
    total = math.prod(batch) * space.num_params
    pieces = torch.arange(total, dtype=torch.float64).split(
        [math.prod(batch) * math.prod(s) for s in space.shapes.values()]
    )
    return {
        name: piece.reshape((*batch, *space.shapes[name]))
        for name, piece in zip(space.shapes, pieces, strict=True)
    }


# flatten and unflatten


@given(spaces, batches)
def test_flatten_and_unflatten_undo_each_other(case: Case, batch):
    params = counted(case.space, batch)
    assert batch_shape(case.space, params) == batch
    flat = flatten(case.space, params)
    assert flat.shape == (*batch, case.space.num_params)
    again = unflatten(case.space, flat)
    assert list(again) == list(case.space.tensors)
    for name, tensor in params.items():
        assert torch.equal(again[name], tensor)
    assert torch.equal(flatten(case.space, again), flat)


@given(spaces)
def test_flat_params_are_the_tensors_in_order_each_in_c_order(case: Case):
    params = counted(case.space, ())
    entries = [value for name in case.space.tensors for value in params[name].flatten().tolist()]
    assert flatten(case.space, params).tolist() == entries


@given(spaces, batches, st.randoms())
def test_flatten_does_not_depend_on_the_order_of_the_dictionary(case: Case, batch, random):
    params = counted(case.space, batch)
    names = list(params)
    random.shuffle(names)
    assert torch.equal(
        flatten(case.space, {name: params[name] for name in names}), flatten(case.space, params)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.int64])
def test_packing_keeps_the_dtype(dtype):
    params = {name: torch.ones(2, *shape, dtype=dtype) for name, shape in SPACE.shapes.items()}
    assert flatten(SPACE, params).dtype == dtype
    assert unflatten(SPACE, flatten(SPACE, params))["bias"].dtype == dtype


@pytest.mark.parametrize("length", [0, 14, 16])
def test_unflatten_says_how_many_entries_it_expected_and_got(length):
    with pytest.raises(ValueError, match=f"expected 15 entries on the last axis, got {length}"):
        unflatten(SPACE, torch.zeros(2, length))


# params that do not fit


@pytest.mark.parametrize("check", [batch_shape, flatten])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, r"missing \['bias'\], unknown \[\]"),
        ({"gain": torch.zeros(3)}, r"missing \[\], unknown \['gain'\]"),
        (
            {"weight": torch.zeros(5, 4, 3)},
            r"tensor 'weight': expected shape \[\*batch, 3, 4\], got \[5, 4, 3\]",
        ),
        (
            {"weight": torch.zeros(4)},
            r"tensor 'weight': expected shape \[\*batch, 3, 4\], got \[4\]",
        ),
        ({"bias": torch.zeros(())}, r"tensor 'bias': expected shape \[\*batch, 3\], got \[\]"),
        (
            {"bias": torch.zeros(6, 3)},
            r"tensor 'bias': expected leading axes \[5\] as before it, got \[6\]",
        ),
        (
            {"bias": torch.zeros(3)},
            r"tensor 'bias': expected leading axes \[5\] as before it, got \[\]",
        ),
    ],
)
def test_params_that_do_not_fit_are_named_with_both_shapes(check, change, message):
    params = {"weight": torch.zeros(5, 3, 4), "bias": torch.zeros(5, 3), **change}
    with pytest.raises(ValueError, match=message):
        check(SPACE, {name: tensor for name, tensor in params.items() if tensor is not None})


# the free view


@given(spaces, batches, st.data())
def test_free_entries_are_those_a_loop_finds(case: Case, batch, data):
    params = counted(case.space, batch)
    masked = data.draw(st.sets(st.sampled_from(list(params))))
    free = {}
    for name in masked:
        shape = case.space.shapes[name]
        bits = data.draw(
            st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape))
        )
        free[name] = torch.tensor(bits).reshape(shape)
    view = free_entries(params, free)
    assert list(view) == list(params)
    for name, tensor in params.items():
        if name not in free:
            assert view[name] is tensor
            continue
        assert view[name].shape == (*batch, int(free[name].sum()))
        rows = tensor.reshape(math.prod(batch), free[name].numel()).tolist()
        expected = [
            value
            for row in rows
            for value, bit in zip(row, free[name].flatten().tolist(), strict=True)
            if bit
        ]
        assert view[name].flatten().tolist() == expected


def test_the_free_view_leaves_the_params_alone():
    params = counted(SPACE, (2,))
    free_entries(params, {"weight": torch.zeros(3, 4, dtype=torch.bool)})
    assert params["weight"].shape == (2, 3, 4)


# stacking and broadcasting


@given(spaces, st.integers(1, 4))
def test_stacked_networks_are_the_rows(case: Case, count):
    networks = [
        {name: tensor + 1000 * i for name, tensor in counted(case.space, ()).items()}
        for i in range(count)
    ]
    stacked = stack(networks)
    assert batch_shape(case.space, stacked) == (count,)
    for i, network in enumerate(networks):
        for name, tensor in network.items():
            assert torch.equal(stacked[name][i], tensor)


def test_stacking_nothing_is_an_error():
    with pytest.raises(ValueError, match="stack: expected at least one network, got none"):
        stack([])


@given(
    st.lists(st.integers(1, 3), max_size=2).map(tuple),
    st.lists(st.integers(1, 3), max_size=3).map(tuple),
)
def test_expanded_values_multiply_each_network_by_its_own(batch, rest):
    values = torch.arange(1, 1 + math.prod(batch), dtype=torch.float64).reshape(batch)
    like = torch.ones((*batch, *rest), dtype=torch.float64)
    wide = expand_right(values, like)
    assert wide.dim() == like.dim()
    product = (wide * like).reshape(math.prod(batch), -1)
    assert torch.equal(product, values.reshape(-1, 1).expand_as(product))
