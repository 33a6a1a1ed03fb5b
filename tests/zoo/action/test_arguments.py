"""Types of numbers, arguments and errors of the action."""

import pytest
import torch

from tests.zoo.action.elements import SPACE, assert_same, generator, params_of
from zoo.params import flatten
from zoo.symmetry.action import GroupElement, act, identity, sample
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_action_keeps_the_dtype_and_its_arguments(dtype):
    params = random_params(SPACE, generator(0), dtype=dtype)
    before = {name: tensor.clone() for name, tensor in params.items()}
    moved = act(SPACE, sample(SPACE, generator(1)), params)
    assert {tensor.dtype for tensor in moved.values()} == {dtype}
    assert all(torch.equal(params[name], before[name]) for name in before)


def test_the_action_is_differentiable_and_works_under_vmap():
    element, params = sample(SPACE, generator(1)), params_of(SPACE, 0, (3,))
    moved = torch.func.vmap(lambda network: act(SPACE, element, network))(params)
    assert_same(moved, act(SPACE, element, params))
    one = {name: tensor[0].requires_grad_() for name, tensor in params.items()}
    flatten(SPACE, act(SPACE, element, one)).sum().backward()
    assert all(
        tensor.grad is not None and bool((tensor.grad != 0).all()) for tensor in one.values()
    )


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (
            GroupElement({"h9": torch.arange(3)}, {}),
            r"moves a group 'h9'; groups of the space are \['h', 'x'\]",
        ),
        (GroupElement({}, {"h9": torch.ones(3)}), r"moves a group 'h9'"),
        (GroupElement({"h": torch.arange(4)}, {}), r"group 'h': expected 3 neurons, got 4"),
        (
            GroupElement({}, {"h": torch.ones(2, dtype=torch.float64)}),
            r"group 'h': expected 3 neurons, got 2",
        ),
    ],
)
def test_elements_of_another_space_are_refused(element, message):
    with pytest.raises(ValueError, match=message):
        act(SPACE, element, params_of(SPACE, 0))


def test_params_of_another_space_are_refused():
    with pytest.raises(
        ValueError, match=r"tensor 'bias': expected shape \[\*batch, 3\], got \[4\]"
    ):
        act(SPACE, identity(SPACE), {**params_of(SPACE, 0), "bias": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"missing \['bias'\], unknown \[\]"):
        act(SPACE, identity(SPACE), {"weight": torch.zeros(3, 2)})


def test_no_networks_at_all_stay_no_networks():
    space = WeightSpace(
        {"h": NeuronGroup(3, scaling="positive")}, {"weight": "h <- 4", "bias": "h"}
    )
    none = {"weight": torch.zeros(0, 3, 4), "bias": torch.zeros(0, 3)}
    moved = act(space, sample(space, torch.Generator().manual_seed(0), (0,)), none)
    assert {name: tuple(tensor.shape) for name, tensor in moved.items()} == {
        "weight": (0, 3, 4),
        "bias": (0, 3),
    }
