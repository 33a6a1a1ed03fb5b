"""What the hand-written derivatives of this room share.

Edges, `[B, K, W, R]`, are what takes time and memory. The derivatives go through them some networks
at a time, so that these stay in a core's cache.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_FLOATS = 2**17
"""Edge channels of a chunk: half a megabyte of float32, so that the arrays at work fit a cache."""


def differentiable_once(backward: Callable[..., Any]) -> Any:
    """Refuse second derivatives of a `torch.autograd.Function`.

    Args:
        backward: Its method `backward`.

    Returns:
        `once_differentiable(backward)`, without the type that no override of `backward` has.
    """
    return once_differentiable(backward)


def chunks(e: Float[Tensor, "B K W R"], floats: int) -> list[slice]:
    """Networks to go through at a time, so that their edges stay in the processor's cache.

    Args:
        e: Edge features.
        floats: Edge channels of one network.

    Returns:
        Slices of B.
    """
    budget = CHUNK_FLOATS if e.device.type == "cpu" else 256 * CHUNK_FLOATS
    size = max(1, budget // max(1, floats))
    return [slice(start, start + size) for start in range(0, len(e), size)]


def of_networks(parts: Any, networks: slice) -> Any:
    """Those of some networks, of a named tuple of tensors; None where there is none."""
    return parts._make(None if values is None else values[networks] for values in parts)


def or_zeros(gradient: Tensor | None, output: Tensor) -> Tensor:
    """The gradient of an output; zeros if nothing depends on it."""
    return torch.zeros_like(output) if gradient is None else gradient


def mapped(
    e: Float[Tensor, "B K W R"],
    weight: Float[Tensor, "C K"],
    written: Float[Tensor, "B C W"],
    read: Float[Tensor, "B C R"],
    out: Float[Tensor, "B C W R"] | None = None,
) -> Float[Tensor, "B C W R"]:
    """A linear map of edges, and what both ends add: `M e + written + read`.

    Args:
        e: Edge features.
        weight: M.
        written: What all edges receive that write a node.
        read: What all edges receive that read a node.
        out: Where to write the result, if not into new memory.

    Returns:
        The result.
    """
    a = outer_sum(written, read, out)
    a.flatten(2).baddbmm_(weight.expand(len(e), -1, -1), e.flatten(2))
    return a


def outer_sum(
    written: Float[Tensor, "B C W"],
    read: Float[Tensor, "B C R"],
    out: Float[Tensor, "B C W R"] | None = None,
) -> Float[Tensor, "B C W R"]:
    """The sum of what both ends bring, for every edge."""
    return torch.add(written[..., None], read[..., None, :], out=out)


def gradients_of_map(
    delta: Float[Tensor, "B C W R"],
    e: Float[Tensor, "B K W R"],
    weight: Float[Tensor, "C K"],
    into: tuple[Tensor | None, Tensor, Tensor],
    kept: Tensor | None = None,
) -> Float[Tensor, "C K"]:
    """The gradients of `mapped`.

    Args:
        delta: That of its result.
        e: Edge features.
        weight: M.
        into: Where to write those of the edges, if wanted, and of what both ends add.
        kept: What else the gradient of the edges has: that of the edges where they are passed on.

    Returns:
        That of M.
    """
    of_e, written, read = into
    into_ends(delta, written, read)
    if of_e is not None:
        into_edges(of_e, weight, delta, kept)
    return torch.bmm(delta.flatten(2), e.flatten(2).mT).sum(0)


def into_ends(delta: Float[Tensor, "B C W R"], written: Tensor, read: Tensor) -> None:
    """Sums over edges, written to the nodes of both ends."""
    torch.sum(delta, 3, out=written)
    torch.sum(delta, 2, out=read)


def into_edges(into: Tensor, weight: Tensor, delta: Tensor, kept: Tensor | None = None) -> None:
    """Write `M^T delta`, or that and `kept`."""
    back, flat = weight.T.expand(len(delta), -1, -1), delta.flatten(2)
    if kept is None:
        torch.bmm(back, flat, out=into.flatten(2))
    else:
        torch.baddbmm(kept.flatten(2), back, flat, out=into.flatten(2))
