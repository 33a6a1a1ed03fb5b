"""The mean over a set of a linear map and a ReLU, without all channels in memory."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.layers.autograd import differentiable_once

CHUNK_FLOATS = 2**18
"""Channels of a chunk fit a core's second-level cache: 5 to 15 times faster than all at once."""


def mean_relu(
    u: Float[Tensor, "B D inputs"],
    weight: Float[Tensor, "inputs outputs"],
    bias: Float[Tensor, "outputs"],
) -> Float[Tensor, "B outputs"]:
    """Mean over the set axis of ``relu(u @ weight + bias)``; backward recomputes channels.

    Args:
        u: Elements of the sets.
        weight: Linear map.
        bias: Its offset.

    Returns:
        One vector per set.
    """
    (means,) = _MeanReLU.apply(u, weight, bias)
    return means


class _MeanReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
        ctx.save_for_backward(u, weight, bias)
        pieces = u.split(_chunk_size(u, weight))
        means = [_channels(piece, weight, bias).relu_().mean(1) for piece in pieces]
        return (torch.cat(means),)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, weight, bias = ctx.saved_tensors
        size = _chunk_size(u, weight)
        pieces = []
        weight_gradient, bias_gradient = torch.zeros_like(weight), torch.zeros_like(bias)
        for piece, gradient in zip(u.split(size), grad_outputs[0].split(size), strict=True):
            channels = _channels(piece, weight, bias)
            share = (gradient / u.shape[1])[:, None].expand_as(channels)
            delta = torch.ops.aten.threshold_backward(share, channels, 0.0).flatten(0, 1)
            weight_gradient += piece.flatten(0, 1).T @ delta
            bias_gradient += delta.sum(0)
            pieces.append((weight @ delta.T).T.reshape(piece.shape))
        return torch.cat(pieces), weight_gradient, bias_gradient


def _channels(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, u.reshape(-1, u.shape[-1]), weight).view(*u.shape[:-1], -1)


def _chunk_size(u: Tensor, weight: Tensor) -> int:
    budget = CHUNK_FLOATS if u.device.type == "cpu" else 64 * CHUNK_FLOATS
    return max(1, budget // max(1, u.shape[1] * weight.shape[1]))
