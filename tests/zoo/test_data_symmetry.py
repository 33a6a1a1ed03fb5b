"""Data symmetry: momentum by finite differences, orbit size and loss; finite groups."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.architectures import Architecture, build_mlp
from zoo.dynamics.data_symmetry import (
    angular_momentum,
    angular_momentum_residual,
    equivariance_residual,
    matrices,
    one_parameter_orbit,
    orbit,
    orbit_gradient,
    rotation_generator,
    translation_generator,
)
from zoo.dynamics.gradient_flow import descend
from zoo.params import Params, stack

WEIGHT, CLASSES = "layers.0.weight", 3
PLANE = rotation_generator(2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks(architecture: Architecture, count: int = 4, scale: float = 1.0) -> Params:
    drawn = stack([architecture.init(generator(seed)) for seed in range(count)])
    return {name: scale * tensor.double() for name, tensor in drawn.items()}


def batch(*shape: int, count: int = 32) -> tuple[Tensor, Tensor]:
    source = generator(0)
    x = torch.randn(count, *shape, generator=source, dtype=torch.float64)
    return x, torch.randint(CLASSES, (count,), generator=source)


def squared(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - F.one_hot(y, CLASSES)).square().sum(1).mean() / 2


LOSSES: dict[str, Callable] = {"cross-entropy": F.cross_entropy, "squared error": squared}


def residuals(
    apply, params: Params, loss, counts, turns: Tensor = PLANE, shape=(2,)
) -> list[float]:
    """The median residual over networks for each orbit size."""
    medians = []
    for count in counts:
        gradient = orbit_gradient(
            apply, params, batch(*shape), one_parameter_orbit(turns, count), WEIGHT, loss
        )
        medians.append(float(angular_momentum_residual(gradient, params[WEIGHT], turns).median()))
    return medians


# generators and orbits


def test_rotations_turn_the_first_entry_towards_the_second():
    turn = torch.linalg.matrix_exp(math.pi / 2 * rotation_generator(4, (3, 1)))
    assert (turn @ torch.eye(4, dtype=torch.float64)[3]).tolist() == pytest.approx(
        [0, 1, 0, 0], abs=1e-14
    )
    torch.testing.assert_close(
        torch.linalg.matrix_exp(2 * math.pi * PLANE), torch.eye(2, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("shape", "axis"), [((7,), 0), ((2, 5, 3), 1), ((2, 5, 3), 2), ((2, 5, 3), -1)]
)
def test_translations_roll_periodic_images(shape, axis):
    generating, length = translation_generator(shape, axis), shape[axis]
    torch.testing.assert_close(generating, -generating.T)
    x = torch.randn(2, *shape, generator=generator(0), dtype=torch.float64)
    moved = orbit(x, one_parameter_orbit(generating, length))
    for pixels in range(length):
        torch.testing.assert_close(moved[pixels], x.roll(pixels, axis if axis < 0 else axis + 1))
    wave = torch.arange(7, dtype=torch.float64) * 2 * math.pi / 7
    slope = translation_generator((7,), 0) @ torch.sin(2 * wave)
    torch.testing.assert_close(slope, -2 * torch.cos(2 * wave))


def test_translations_need_an_odd_length():
    with pytest.raises(ValueError, match="odd length, got 4"):
        translation_generator((3, 4), 1)


def test_orbits_hold_every_image_moved_by_every_map():
    maps = [
        lambda x: x,
        lambda x: x.flip(-1),
        lambda x: x.rot90(1, (-2, -1)),
        lambda x: x.roll(2, -2),
    ]
    x = torch.randn(5, 2, 3, 3, generator=generator(0), dtype=torch.float64)
    torch.testing.assert_close(
        orbit(x, matrices((2, 3, 3), maps)), torch.stack([move(x) for move in maps])
    )


# the momentum is a derivative


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("shape", [(2,), (1, 2, 3)])
def test_the_momentum_is_the_change_of_the_loss_when_the_first_layer_turns(shape, count, loss):
    turns = PLANE if shape == (2,) else translation_generator(shape, 2)
    architecture, elements = (
        build_mlp(shape, CLASSES, (6, 5), activation="gelu"),
        one_parameter_orbit(turns, count),
    )
    params, (x, y), step = networks(architecture, 3), batch(*shape), 1e-5

    def turned_loss(n: int, angle: float) -> float:
        network = {name: tensor[n] for name, tensor in params.items()}
        network[WEIGHT] = network[WEIGHT] @ torch.linalg.matrix_exp(angle * turns)
        losses = [
            loss(architecture.apply(network, (x.flatten(1) @ element.T).reshape(x.shape)), y)
            for element in elements
        ]
        return float(sum(losses)) / count

    gradient = orbit_gradient(architecture.apply, params, (x, y), elements, WEIGHT, loss)
    momentum = angular_momentum(gradient, params[WEIGHT], turns)
    residual = angular_momentum_residual(gradient, params[WEIGHT], turns)
    for n in range(3):
        expected = (turned_loss(n, step) - turned_loss(n, -step)) / (2 * step)
        assert float(momentum[n]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        size = float(gradient[n].norm() * (params[WEIGHT][n] @ turns).norm())
        assert float(residual[n]) == pytest.approx(abs(expected) / size, rel=1e-6, abs=1e-9)


def test_a_gradient_of_zero_has_residual_zero():
    weight = torch.ones(2, 3, 2, dtype=torch.float64)
    assert angular_momentum_residual(0 * weight, weight, PLANE).tolist() == [0, 0]


# orbit size


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh"])
def test_a_smooth_network_has_no_momentum_on_a_full_orbit(activation, loss):
    """Faster than any power: from 16 angles to 64 by more than from 1 to 16."""
    architecture = build_mlp((2,), CLASSES, (16, 16), activation=activation)
    one, four, sixteen, all_of_it = residuals(
        architecture.apply, networks(architecture, 20, 3.0), loss, (1, 4, 16, 64)
    )
    assert 1e-2 < one < 2e-1
    assert one > four > sixteen > all_of_it
    assert sixteen > 1e-4
    assert all_of_it < 1e-4
    assert sixteen / all_of_it > max(100, one / sixteen)
    assert max(residuals(architecture.apply, networks(architecture, 20), loss, (64, 256))) < 1e-12


def test_a_network_with_kinks_needs_many_more_angles():
    architecture = build_mlp((2,), CLASSES, (16, 16))
    one, four, sixteen, all_of_it = residuals(
        architecture.apply, networks(architecture, 20), F.cross_entropy, (1, 4, 16, 64)
    )
    assert one > four > sixteen > all_of_it > 1e-4


def test_a_translation_has_no_momentum_on_a_full_orbit():
    turns, architecture = (
        translation_generator((5,), 0),
        build_mlp((5,), CLASSES, (8,), activation="tanh"),
    )
    medians = residuals(
        architecture.apply, networks(architecture), F.cross_entropy, (1, 5, 64), turns, (5,)
    )
    assert medians[0] > medians[1] > 1e-4
    assert medians[2] < 1e-12


# losses


def quadratic(params: Params, x: Tensor) -> Tensor:
    """A polynomial network of degree 2."""
    hidden = (x @ params[WEIGHT].T + params["layers.0.bias"]) ** 2
    return hidden @ params["layers.1.weight"].T + params["layers.1.bias"]


@pytest.mark.parametrize(("name", "degree"), [("linear", 1), ("quadratic", 2)])
def test_for_polynomials_a_finite_orbit_is_exact_for_squared_error_and_not_for_cross_entropy(
    name, degree
):
    """A loss of degree 2 d in the input has frequencies up to 2 d: 2 d + 1 angles average all."""
    architecture = build_mlp((2,), CLASSES, (6,), activation="linear")
    apply, params, enough = (
        architecture.apply if name == "linear" else quadratic,
        networks(architecture),
        2 * degree + 1,
    )
    before, exact, more = residuals(apply, params, squared, (enough - 1, enough, enough + 1))
    assert before > 1e-4
    assert max(exact, more) < 1e-14
    assert min(residuals(apply, params, F.cross_entropy, (enough - 1, enough, enough + 1))) > 1e-6


def test_squared_error_of_a_linear_network_has_integrals_that_cross_entropy_has_not():
    """On a full orbit `E x x^T` is a multiple of 1, `E y x^T` is 0: the weight only shrinks."""
    architecture, elements = build_mlp((2,), CLASSES, ()), one_parameter_orbit(PLANE, 64)
    params, (x, y) = networks(architecture, 3, 2.0), batch(2)
    images, labels, turned = orbit(x, elements).flatten(0, 1), y.repeat(64), {}
    for name, loss in LOSSES.items():
        after = descend(
            lambda network, loss=loss: loss(architecture.apply(network, images), labels),
            params,
            0.1,
            30,
        ).params[WEIGHT]
        turned[name] = 1 - F.cosine_similarity(after.flatten(1), params[WEIGHT].flatten(1))
        assert float((after - params[WEIGHT]).norm()) > 0.1
    assert float(turned["squared error"].abs().max()) < 1e-14
    assert float(turned["cross-entropy"].min()) > 1e-3


# finite groups

FLIPS = [lambda x: x, lambda x: x.flip(-1)]
QUARTERS = [lambda x, k=k: x.rot90(k, (-2, -1)) for k in range(4)]
SHIFTS = [lambda x, k=k: x.roll(k, -1) for k in range(4)]


@pytest.mark.parametrize(
    "maps", [FLIPS, QUARTERS, SHIFTS], ids=["flips", "quarter turns", "shifts"]
)
def test_on_the_orbit_of_a_group_the_gradient_is_equivariant(maps):
    architecture = build_mlp((1, 4, 4), CLASSES, (6,))
    params, elements = networks(architecture), matrices((1, 4, 4), maps)
    residual = equivariance_residual(architecture.apply, params, batch(1, 4, 4), elements, WEIGHT)
    assert residual.shape == (4, len(maps))
    assert float(residual.max()) < 1e-12
    # Without the identity it is no group.
    broken = equivariance_residual(architecture.apply, params, batch(1, 4, 4), elements[1:], WEIGHT)
    assert float(broken.min()) > 1e-3


def cross_entropy_on(architecture, images, labels, params):
    return F.cross_entropy(architecture.apply(params, images), labels)


def test_weights_that_a_group_leaves_in_place_stay_so():
    architecture, elements = build_mlp((1, 4, 4), CLASSES, (6,)), matrices((1, 4, 4), QUARTERS)
    params, (x, y) = networks(architecture), batch(1, 4, 4)
    params[WEIGHT] = torch.stack([params[WEIGHT] @ element for element in elements]).mean(0)
    for images, expected in ((orbit(x, elements).flatten(0, 1), True), (x, False)):
        labels = y.repeat(len(images) // len(x))
        loss = partial(cross_entropy_on, architecture, images, labels)
        after = descend(loss, params, 0.5, 5).params[WEIGHT]
        assert float((after - params[WEIGHT]).norm()) > 1e-2
        assert (float((after @ elements[1] - after).abs().max()) < 1e-13) == expected


def test_few_angles_of_a_circle_are_a_group_without_a_law_for_the_velocity():
    architecture, elements = (
        build_mlp((2,), CLASSES, (8,), activation="tanh"),
        one_parameter_orbit(PLANE, 4),
    )
    params = networks(architecture)
    assert (
        float(equivariance_residual(architecture.apply, params, batch(2), elements, WEIGHT).max())
        < 1e-12
    )
    assert residuals(architecture.apply, params, F.cross_entropy, (4,))[0] > 1e-4
