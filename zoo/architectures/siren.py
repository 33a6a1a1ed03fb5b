"""SIREN: a perceptron with sine activations, an implicit representation of a signal."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from zoo.architectures.base import Activate, Architecture
from zoo.architectures.layers import draw_layers
from zoo.architectures.mlp import build_mlp
from zoo.options import Widths
from zoo.params import Params
from zoo.weight_space import WeightSpace


def build_siren(
    input_shape: Sequence[int],
    num_classes: int,
    hidden: Widths = (32, 32),
    omega: float = 30.0,
) -> Architecture:
    """A perceptron on flattened inputs, `h <- sin(omega (W h + b))`, with a linear output layer.

    Parameters are `layers.<i>.weight` and `layers.<i>.bias`. Weights start as `U(-1/n, 1/n)` in the
    first layer and as `U(-sqrt(6/n)/omega, sqrt(6/n)/omega)` in the others, for fan-in `n`; biases
    start as PyTorch's do.

    Args:
        input_shape: Shape of one input, such as `(2,)` for coordinates in the plane.
        num_classes: Number of outputs `K`: classes, or channels of a signal.
        hidden: Widths of the hidden layers.
        omega: Factor of the pre-activations, more than 0.

    Returns:
        The architecture.

    Raises:
        ValueError: If there is no hidden layer, or `omega` or a width is not positive.

    References:
        Sitzmann et al. 2020, arXiv 2006.09661, section 3.2 and theorem 1.8.
    """
    if not hidden or not 0 < omega < math.inf:
        raise ValueError(
            "siren: expected at least one hidden layer and omega > 0, "
            f"got {list(hidden)} and {omega}"
        )
    perceptron = build_mlp(input_shape, num_classes, hidden, "sine")
    return Architecture(
        perceptron.space,
        partial(_draw, perceptron.space, omega),
        partial(_forward, perceptron, omega),
    )


def _draw(space: WeightSpace, omega: float, generator: torch.Generator) -> Params:
    params = draw_layers(space, generator)
    for i in range(len(params) // 2):
        fan_in = space.shapes[f"layers.{i}.weight"][1]
        gain = math.sqrt(6) / omega if i else fan_in**-0.5
        params[f"layers.{i}.weight"] *= gain
    return params


def _forward(
    perceptron: Architecture, omega: float, params: Params, x: Tensor, activate: Activate
) -> Tensor:
    return perceptron.forward(params, x, lambda group, z: activate(group, omega * z))
