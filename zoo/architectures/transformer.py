"""Small vision transformer: patches, pre-norm blocks of attention and perceptron, mean pooling."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.architectures.base import Activate, Architecture, activate_last, check_activation
from zoo.architectures.layers import hidden_group, initial_layer, linear, whole_space
from zoo.architectures.norms import layer_norm
from zoo.options import Layers
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace

# Patterns of block `#`. Weight and bias of every norm write the stream `d` and its scales; all that
# reads the stream reads them. What adds into it is read through norms only, so it is permuted with
# `d` and not scaled: `d^0`. Queries and keys meet in products.
_BLOCK = {
    "norm1.weight": "d",
    "norm1.bias": "d",
    "q.weight": "(head# qk#) <- d",
    "q.bias": "(head# qk#)",
    "k.weight": "(head# qk#^-1) <- d",
    "v.weight": "(head# v#) <- d",
    "v.bias": "(head# v#)",
    "out.weight": "d^0 <- (head# v#)",
    "out.bias": "d^0",
    "norm2.weight": "d",
    "norm2.bias": "d",
    "fc1.weight": "m# <- d",
    "fc1.bias": "m#",
    "fc2.weight": "d^0 <- m#",
    "fc2.bias": "d^0",
}


def build_transformer(
    input_shape: Sequence[int],
    num_classes: int,
    patch: int = 4,
    dim: int = 32,
    heads: int = 2,
    depth: Layers = 2,
    mlp_ratio: int = 2,
    activation: str = "gelu",
) -> Architecture:
    """A vision transformer on images, or on sequences.

    `h = embed(patches) + position`; a block is `h <- h + out(attention(norm1(h)))`,
    `h <- h + fc2(act(fc1(norm2(h))))`; then `classifier(mean over patches of norm(h))`. Parameters
    are `embed.weight`, `embed.bias`, `position.weight`, `blocks.<i>.norm1.*`, `blocks.<i>.q.*`,
    `k.weight`, `v.*`, `out.*`, `norm2.*`, `fc1.*`, `fc2.*`, `norm.*`, `classifier.*`.
    Keys have no bias: softmax takes it away. Layers start as PyTorch's do, positions as
    `N(0, 0.02^2)`.

    Args:
        input_shape: `(channels, height, width)` or `(channels, length)` of one input.
        num_classes: Number of outputs `K`.
        patch: Side of a patch; must divide height and width, or length.
        dim: Width of the residual stream.
        heads: Attention heads; must divide `dim`.
        depth: Number of blocks.
        mlp_ratio: Hidden neurons of a block's perceptron for each of `dim`.
        activation: Name of its non-linearity.

    Returns:
        The architecture.

    Raises:
        ValueError: If an option is unknown or does not fit the others.

    References:
        Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.1; Xiong et al. 2020, arXiv 2002.04745
        (norm before the layers).
    """
    check_activation(activation)
    sides = tuple(input_shape[1:])
    _check_patches(input_shape, patch)
    if heads < 1 or dim % heads or depth < 1 or mlp_ratio < 1:
        raise ValueError(
            "transformer: expected dim as a multiple of heads, depth >= 1 and mlp_ratio >= 1, "
            f"got dim={dim}, heads={heads}, depth={depth}, mlp_ratio={mlp_ratio}"
        )
    groups = {"d": NeuronGroup(dim, scaling="any")}
    groups |= _groups_of_blocks(
        depth, heads, dim // heads, hidden_group(mlp_ratio * dim, activation)
    )
    patterns = _patterns(sides, patch, depth)
    space = whole_space(input_shape[0], groups, num_classes, patterns, "d")
    return Architecture(space, partial(_draw, space), partial(_forward, patch, heads, depth))


def _check_patches(input_shape: Sequence[int], patch: int) -> None:
    sides = tuple(input_shape[1:])
    if len(sides) not in (1, 2):
        raise ValueError(
            "a transformer needs inputs of shape (channels, height, width) or (channels, length), "
            f"got {tuple(input_shape)}"
        )
    if patch < 1 or any(side % patch for side in sides):
        raise ValueError(
            f"transformer: patch={patch} does not divide {sides} of inputs {tuple(input_shape)}"
        )


def _draw(space: WeightSpace, generator: torch.Generator) -> Params:
    return {
        name: 0.02 * torch.randn(shape, generator=generator)
        if name == "position.weight"
        else initial_layer(space, name, generator)
        for name, shape in space.shapes.items()
    }


def _forward(
    patch: int, heads: int, depth: int, params: Params, x: Tensor, activate: Activate
) -> Tensor:
    convolve = F.conv2d if x.dim() == 4 else F.conv1d
    embedded = convolve(x, params["embed.weight"], params["embed.bias"], stride=patch)
    h = embedded.flatten(2).transpose(1, 2) + params["position.weight"]
    for i in range(depth):
        block = f"blocks.{i}"
        h = h + _attention(params, block, heads, layer_norm(params, f"{block}.norm1", h))
        hidden = linear(params, f"{block}.fc1", layer_norm(params, f"{block}.norm2", h))
        h = h + linear(params, f"{block}.fc2", activate_last(activate, f"m{i + 1}", hidden))
    return linear(params, "classifier", layer_norm(params, "norm", h).mean(1))


def _attention(params: Params, block: str, heads: int, h: Tensor) -> Tensor:
    # Each of shape [X, heads, patches, neurons of a head].
    q, k, v = (
        linear(params, f"{block}.{kind}", h).unflatten(-1, (heads, -1)).transpose(1, 2)
        for kind in ("q", "k", "v")
    )
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    return linear(params, f"{block}.out", (weights @ v).transpose(1, 2).flatten(2))


def _groups_of_blocks(
    depth: int, heads: int, head_dim: int, hidden: NeuronGroup
) -> dict[str, NeuronGroup]:
    groups = {}
    for i in range(1, depth + 1):
        groups[f"head{i}"] = NeuronGroup(heads)
        groups[f"qk{i}"] = groups[f"v{i}"] = NeuronGroup(head_dim, scaling="any")
        groups[f"m{i}"] = hidden
    return groups


def _patterns(sides: Sequence[int], patch: int, depth: int) -> dict[str, str]:
    patches = math.prod(side // patch for side in sides)
    tensors = {
        "embed.weight": f"d^0 <- x{f' {patch}' * len(sides)}",
        "embed.bias": "d^0",
        "position.weight": f"{patches} d^0",
    }
    for i in range(depth):
        for name, pattern in _BLOCK.items():
            tensors[f"blocks.{i}.{name}"] = pattern.replace("#", str(i + 1))
    return tensors | {"norm.weight": "d", "norm.bias": "d"}
