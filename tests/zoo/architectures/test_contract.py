"""One contract for every member of the tables of architectures and asymmetries."""

from itertools import product

import pytest
import torch
from torch.func import grad, vmap

from tests.zoo.architectures.twins import (
    CLASSES,
    INPUT,
    assert_equal_up_to_rounding,
    double,
    generator,
    inputs,
)
from tests.zoo.instances import INPUTS, instance
from zoo.architectures import (
    ARCHITECTURES,
    ASYMMETRIES,
    Architecture,
    build_architecture,
    build_mlp,
    make_asymmetric,
)
from zoo.params import batch_shape, flatten, free_entries, stack

KINDS = {"standard": None, **{kind: {} for kind in ASYMMETRIES}, "w kappa 0": {"kappa": 0.0}}


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
