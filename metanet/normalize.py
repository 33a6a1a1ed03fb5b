"""Normalization fitted on training networks, kept in buffers, robust against a few networks with huge weights."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TensorNorm(nn.Module):
    """One center and one scale per parameter tensor, so that permuting neurons commutes with it.

        z = clamp((x - center_t) / scale_t, -limit, limit)

    Center and scale are medians, over the training networks, of the mean and the root mean square around the center. (Scaling
    every *entry* separately breaks permutation invariance and did worse even for the flat MLP, which has none to break.)
    """

    center: Tensor
    scale: Tensor

    def __init__(self, sizes: Sequence[int], limit: float = 20.0):
        """Start as the identity.

        Args:
            sizes: Number of columns of each tensor, in order.
            limit: Largest absolute output.
        """
        super().__init__()
        self.sizes = list(sizes)
        self.limit = limit
        self.register_buffer("center", torch.zeros(sum(sizes)))
        self.register_buffer("scale", torch.ones(sum(sizes)))

    def calibrate(self, x: Float[Tensor, "N D"]) -> None:
        """Set center and scale.

        Args:
            x: Free entries of the training networks.
        """
        centers, scales = [], []
        for piece in x.split(self.sizes, dim=1):
            center = piece.mean(1).median()
            scale = (piece - center).square().mean(1).sqrt().median()
            centers.append(center.expand(piece.shape[1]))
            scales.append(_safe(scale).expand(piece.shape[1]))
        self.center.copy_(torch.cat(centers))
        self.scale.copy_(torch.cat(scales))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Normalize."""
        return ((x - self.center) / self.scale).clamp(-self.limit, self.limit)


class TensorScale(nn.Module):
    """One scale per parameter tensor and no center, so that flipping the signs of neurons commutes with it, too.

        z = clamp(x / scale_t, -limit, limit)

    The scale is the median, over the training networks, of the root mean square.
    """

    scale: Tensor

    def __init__(self, sizes: Sequence[int], limit: float = 20.0):
        """Start as the identity.

        Args:
            sizes: Number of columns of each tensor, in order.
            limit: Largest absolute output.
        """
        super().__init__()
        self.sizes = list(sizes)
        self.limit = limit
        self.register_buffer("scale", torch.ones(sum(sizes)))

    def calibrate(self, x: Float[Tensor, "N D"]) -> None:
        """Set the scale.

        Args:
            x: Free entries of the training networks.
        """
        scales = [_safe(piece.square().mean(1).sqrt().median()).expand(piece.shape[1]) for piece in x.split(self.sizes, dim=1)]
        self.scale.copy_(torch.cat(scales))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Normalize."""
        return (x / self.scale).clamp(-self.limit, self.limit)


class ColumnNorm(nn.Module):
    """One center and one scale per column, for features that are statistics already.

        z = asinh((x - median) / (interquartile range / 1.349))

    The inverse hyperbolic sine is the identity near 0 and a logarithm far out: variances span many decades.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, columns: int):
        """Start as asinh.

        Args:
            columns: Number of columns.
        """
        super().__init__()
        self.register_buffer("center", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    def calibrate(self, x: Float[Tensor, "N S"]) -> None:
        """Set center and scale.

        Args:
            x: Statistics of the training networks.
        """
        low, middle, high = (x.quantile(q, dim=0) for q in (0.25, 0.5, 0.75))
        self.center.copy_(middle)
        self.scale.copy_(_safe((high - low) / 1.349))

    def forward(self, x: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """Normalize."""
        return ((x - self.center) / self.scale).clamp(-_HUGE, _HUGE).asinh()


_HUGE = 1e15  # its square is finite in float32, which asinh needs; statistics of diverged networks go far beyond


def _safe(scale: Tensor) -> Tensor:
    """A scale to divide by: 1 where there is no spread at all."""
    return torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
