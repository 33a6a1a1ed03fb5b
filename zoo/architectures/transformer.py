"""Small vision transformer: patches, pre-norm blocks of attention and perceptron, mean pooling."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.architectures.base import (
    ACTIVATIONS,
    Activate,
    Architecture,
    activate_last,
    check_activation,
    uniform_fan_in,
)
from zoo.architectures.norms import initial_norm
from zoo.params import Params
from zoo.weight_space import NeuronGroup, WeightSpace


def build_transformer(
    input_shape: Sequence[int],
    num_classes: int,
    patch: int = 4,
    dim: int = 32,
    heads: int = 2,
    depth: int = 2,
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
    if len(sides) not in (1, 2):
        raise ValueError(
            f"a transformer needs inputs of shape (channels, height, width) or (channels, length), got {tuple(input_shape)}"
        )
    if patch < 1 or any(side % patch for side in sides):
        raise ValueError(
            f"transformer: patch={patch} does not divide {sides} of inputs {tuple(input_shape)}"
        )
    if heads < 1 or dim % heads or depth < 1 or mlp_ratio < 1:
        raise ValueError(
            "transformer: expected dim as a multiple of heads, depth >= 1 and mlp_ratio >= 1, "
            f"got dim={dim}, heads={heads}, depth={depth}, mlp_ratio={mlp_ratio}"
        )
    space = _space(input_shape, num_classes, patch, dim, heads, depth, mlp_ratio * dim, activation)
    convolve = F.conv2d if len(sides) == 2 else F.conv1d

    def draw(generator: torch.Generator) -> Params:
        params: Params = {}
        for name, shape in space.shapes.items():
            if name.split(".")[-2].startswith("norm"):
                params[name] = initial_norm(name, shape)
            elif name == "position.weight":
                params[name] = 0.02 * torch.randn(shape, generator=generator)
            else:
                fan_in = math.prod(space.shapes[name.replace("bias", "weight")][1:])
                params[name] = uniform_fan_in(shape, fan_in, generator)
        return params

    def forward(params: Params, x: Tensor, activate: Activate) -> Tensor:
        embedded = convolve(x, params["embed.weight"], params["embed.bias"], stride=patch)
        h = embedded.flatten(2).transpose(1, 2) + params["position.weight"]
        for i in range(depth):
            h = _block(params, i, heads, h, activate)
        h = _norm(params, "norm", h).mean(1)
        return F.linear(h, params["classifier.weight"], params["classifier.bias"])

    return Architecture(space, draw, forward)


def _norm(params: Params, name: str, h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])


def _block(params: Params, i: int, heads: int, h: Tensor, activate: Activate) -> Tensor:
    def linear(name: str, z: Tensor) -> Tensor:
        return F.linear(
            z, params[f"blocks.{i}.{name}.weight"], params.get(f"blocks.{i}.{name}.bias")
        )

    def split(z: Tensor) -> Tensor:
        return z.unflatten(-1, (heads, -1)).transpose(
            1, 2
        )  # [X, heads, patches, neurons of a head]

    normed = _norm(params, f"blocks.{i}.norm1", h)
    q, k, v = (split(linear(name, normed)) for name in ("q", "k", "v"))
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    h = h + linear("out", (weights @ v).transpose(1, 2).flatten(2))
    normed = _norm(params, f"blocks.{i}.norm2", h)
    return h + linear("fc2", activate_last(activate, f"m{i + 1}", linear("fc1", normed)))


def _space(
    input_shape: Sequence[int],
    num_classes: int,
    patch: int,
    dim: int,
    heads: int,
    depth: int,
    hidden: int,
    activation: str,
) -> WeightSpace:
    # Weight and bias of every norm write the stream `d` and its scales; all that reads the stream
    # reads them. What adds into it
    # is read through norms only, so it is permuted with `d` and not scaled: `d^0`. Queries and keys
    # meet in products.
    sides = input_shape[1:]
    patches = math.prod(side // patch for side in sides)
    groups = {
        "x": NeuronGroup(input_shape[0], permutable=False),
        "d": NeuronGroup(dim, scaling="any"),
    }
    tensors = {
        "embed.weight": f"d^0 <- x{f' {patch}' * len(sides)}",
        "embed.bias": "d^0",
        "position.weight": f"{patches} d^0",
    }
    for i in range(depth):
        head, qk, v, m = (f"{kind}{i + 1}" for kind in ("head", "qk", "v", "m"))
        groups |= {
            head: NeuronGroup(heads),
            qk: NeuronGroup(dim // heads, scaling="any"),
            v: NeuronGroup(dim // heads, scaling="any"),
            m: NeuronGroup(hidden, True, ACTIVATIONS[activation][1], activation),
        }
        own = {
            "norm1.weight": "d",
            "norm1.bias": "d",
            "q.weight": f"({head} {qk}) <- d",
            "q.bias": f"({head} {qk})",
            "k.weight": f"({head} {qk}^-1) <- d",
            "v.weight": f"({head} {v}) <- d",
            "v.bias": f"({head} {v})",
            "out.weight": f"d^0 <- ({head} {v})",
            "out.bias": "d^0",
            "norm2.weight": "d",
            "norm2.bias": "d",
            "fc1.weight": f"{m} <- d",
            "fc1.bias": m,
            "fc2.weight": f"d^0 <- {m}",
            "fc2.bias": "d^0",
        }
        tensors |= {f"blocks.{i}.{name}": pattern for name, pattern in own.items()}
    groups["y"] = NeuronGroup(num_classes, permutable=False)
    tensors |= {
        "norm.weight": "d",
        "norm.bias": "d",
        "classifier.weight": "y <- d",
        "classifier.bias": "y",
    }
    return WeightSpace(groups, tensors)
