"""What architectures share: how a layer starts, what it computes, and the patterns it has."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.architectures.base import ACTIVATIONS
from zoo.architectures.norms import before_norm, initial_norm
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace


def hidden_group(size: int, activation: str) -> NeuronGroup:
    """A group of hidden neurons, with the symmetry that its non-linearity leaves it."""
    return NeuronGroup(size, True, ACTIVATIONS[activation][1], activation)


def whole_space(
    num_inputs: int,
    hidden: Mapping[str, NeuronGroup],
    num_classes: int,
    tensors: Mapping[str, str],
    features: str,
) -> WeightSpace:
    """The space of hidden layers between inputs and a linear classifier.

    Args:
        num_inputs: Size of the group `x`.
        hidden: The groups between.
        num_classes: Size of the group `y`.
        tensors: Patterns of the hidden layers.
        features: What the classifier reads: the factors of one axis.

    Returns:
        The space.
    """
    groups = {
        "x": NeuronGroup(num_inputs, permutable=False),
        **hidden,
        "y": NeuronGroup(num_classes, permutable=False),
    }
    classifier = {"classifier.weight": f"y <- ({features})", "classifier.bias": "y"}
    return WeightSpace(groups, {**tensors, **classifier})


def layer_patterns(
    name: str,
    norm_name: str,
    written: str,
    read: str,
    activation: str,
    norm: str,
    bias: bool = True,
) -> dict[str, str]:
    """Patterns of a linear or convolutional layer and of the norm that follows it.

    Args:
        name: Name of the layer.
        norm_name: Name of the norm layer.
        written: Group that the norm writes, or the factors of an axis such as `"g1 c1"`.
        read: Axes that the layer reads.
        activation: Non-linearity of the group that is written.
        norm: `"none"`, `"batch"`, or a norm without running statistics.
        bias: Whether the layer has a bias.

    Returns:
        Patterns of weight and bias of the layer, then of the norm.
    """
    before = f"({before_norm(written, ACTIVATIONS[activation][1], norm)})"
    patterns = {f"{name}.weight": f"{before} <- {read}"}
    if bias:
        patterns[f"{name}.bias"] = before
    if norm != "none":
        patterns |= {f"{norm_name}.weight": f"({written})", f"{norm_name}.bias": f"({written})"}
    if norm == "batch":
        patterns |= {f"{norm_name}.running_mean": before, f"{norm_name}.running_var": before}
    return patterns


def draw_layers(space: WeightSpace, generator: torch.Generator) -> Params:
    """The start of a network of linear layers, convolutions and norms, as PyTorch has it."""
    return {name: initial_layer(space, name, generator) for name in space.tensors}


def initial_layer(space: WeightSpace, name: str, generator: torch.Generator) -> Tensor:
    """The start of one tensor.

    Args:
        space: The weight space; the weight of a bias has the name of the bias but for its end.
        name: Name of the tensor; it has `norm` in it if, and only if, it belongs to a norm.
        generator: Source of randomness; a norm draws nothing.

    Returns:
        The identity for a norm, `U(-1/sqrt(fan_in), 1/sqrt(fan_in))` for every other layer.
    """
    shape = space.shapes[name]
    if "norm" in name:
        return initial_norm(name, shape)
    fan_in = math.prod(space.shapes[name.replace("bias", "weight")][1:])
    return (2 * torch.rand(shape, generator=generator) - 1) / fan_in**0.5


def linear(
    params: Params, name: str, h: Float[Tensor, "X *positions i"]
) -> Float[Tensor, "X *positions o"]:
    """Run a linear layer, with or without a bias, on the last axis."""
    return F.linear(h, params[f"{name}.weight"], params.get(f"{name}.bias"))


def convolve(
    params: Params, name: str, h: Float[Tensor, "X i height width"], stride: int
) -> Float[Tensor, "X o rows columns"]:
    """Run a convolution of odd kernel, with or without a bias, padded by half its kernel."""
    weight = params[f"{name}.weight"]
    padding = weight.shape[-1] // 2
    return F.conv2d(h, weight, params.get(f"{name}.bias"), stride, padding=padding)


def check_image_shape(what: str, input_shape: tuple[int, ...]) -> None:
    """Refuse inputs that are not images.

    Args:
        what: Name of the architecture, for the error.
        input_shape: Shape of one input.

    Raises:
        ValueError: If the shape is not `(channels, height, width)`.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"a {what} needs inputs of shape (channels, height, width), got {input_shape}"
        )
