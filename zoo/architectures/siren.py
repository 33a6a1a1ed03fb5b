"""SIREN: a perceptron with sine activations, an implicit neural representation where its inputs are coordinates."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from zoo.architectures.base import Activate, Architecture, uniform_fan_in
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace


def build_siren(
    input_shape: Sequence[int],
    num_classes: int,
    hidden: Sequence[int] = (32, 32),
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
            f"siren: expected at least one hidden layer and omega > 0, got {list(hidden)} and {omega}"
        )
    widths = [math.prod(input_shape), *hidden, num_classes]
    space = _space(widths)

    def draw(generator: torch.Generator) -> Params:
        params = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            gain = math.sqrt(6) / omega if i else fan_in**-0.5
            params[f"layers.{i}.weight"] = gain * uniform_fan_in(
                (fan_out, fan_in), fan_in, generator
            )
            params[f"layers.{i}.bias"] = uniform_fan_in((fan_out,), fan_in, generator)
        return params

    def forward(params: Params, x: Tensor, activate: Activate) -> Tensor:
        h = x.flatten(1)
        for i in range(len(hidden)):
            z = (params[f"layers.{i}.weight"] @ h.T).T + params[f"layers.{i}.bias"]
            h = activate(f"h{i + 1}", omega * z)
        return (params[f"layers.{len(hidden)}.weight"] @ h.T).T + params[
            f"layers.{len(hidden)}.bias"
        ]

    return Architecture(space, draw, forward)


def _space(widths: Sequence[int]) -> WeightSpace:
    names = ["x", *(f"h{i}" for i in range(1, len(widths) - 1)), "y"]
    groups = {
        name: NeuronGroup(size, True, "sign", "sine")
        for name, size in zip(names, widths, strict=True)
    }
    groups |= {
        "x": NeuronGroup(widths[0], permutable=False),
        "y": NeuronGroup(widths[-1], permutable=False),
    }
    tensors = {}
    for i, (read, written) in enumerate(pairwise(names)):
        tensors |= {f"layers.{i}.weight": f"{written} <- {read}", f"layers.{i}.bias": written}
    return WeightSpace(groups, tensors)
