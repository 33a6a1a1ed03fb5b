"""Normalization fitted on training networks, kept in buffers, robust against a few networks with huge weights."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import Source
from zoo.params import Params


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
            center, scale = _center_and_scale(piece)
            centers.append(center.expand(piece.shape[1]))
            scales.append(scale.expand(piece.shape[1]))
        self.center.copy_(torch.cat(centers))
        self.scale.copy_(torch.cat(scales))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Normalize."""
        return ((x - self.center) / self.scale).clamp(-self.limit, self.limit)


class ParamsNorm(nn.Module):
    """The same for params that stay tensors. A center and a scale per tensor are all it keeps, so it fits other sizes too.

        z = clamp((factor x - center_t) / scale_t, -limit, limit)

    Fixed entries become zero.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        source: Source,
        factors: Mapping[str, Tensor] | None = None,
        centered: bool = True,
        limit: int | float = 20.0,
    ):
        """Start as a multiplication by the factors.

        Args:
            source: Weight space and masks.
            factors: For some tensors, what their entries are multiplied with first, `[*shape]`.
            centered: Whether there is a center; without one, flipping signs of neurons commutes with it, too.
            limit: Largest absolute output.
        """
        super().__init__()
        self.limit, self.centered = limit, centered
        self.names = list(source.space.tensors)
        self.factored, self.masked = list(factors or {}), list(source.free)
        for at, name in enumerate(self.factored):
            self.register_buffer(f"factor_{at}", (factors or {})[name], persistent=False)
        for at, name in enumerate(self.masked):
            self.register_buffer(f"free_{at}", source.free[name].bool(), persistent=False)
        self.register_buffer("center", torch.zeros(len(self.names)))
        self.register_buffer("scale", torch.ones(len(self.names)))

    def calibrate(self, params: Params) -> None:
        """Set center and scale.

        Args:
            params: Full params of the training networks, `[N, *shape]`.
        """
        for at, name in enumerate(self.names):
            x, free = self._scaled(name, params[name]).reshape(len(params[name]), -1), self._free(name)
            x = x if free is None else x[:, free.flatten()]
            if x.shape[1]:
                self.center[at], self.scale[at] = _center_and_scale(x, self.centered)

    def forward(self, params: Params) -> Params:
        """Normalize.

        Args:
            params: Full params `[B, *shape]`.

        Returns:
            Tensors of the same shapes.
        """
        normal = {}
        for at, name in enumerate(self.names):
            x, free = (self._scaled(name, params[name]) - self.center[at]) / self.scale[at], self._free(name)
            x = x.clamp(-self.limit, self.limit)
            normal[name] = x if free is None else torch.where(free, x, torch.zeros_like(x))
        return normal

    def _scaled(self, name: str, x: Tensor) -> Tensor:
        return x * getattr(self, f"factor_{self.factored.index(name)}") if name in self.factored else x

    def _free(self, name: str) -> Tensor | None:
        return getattr(self, f"free_{self.masked.index(name)}") if name in self.masked else None


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


def _center_and_scale(x: Tensor, centered: bool = True) -> tuple[Tensor, Tensor]:
    """Medians over networks `[N, entries]` of the mean (0 if not centered) and of the root mean square around it."""
    center = x.mean(1).median() if centered else x.new_zeros(())
    return center, _safe((x - center).square().mean(1).sqrt().median())


def _safe(scale: Tensor) -> Tensor:
    """A scale to divide by: 1 where there is no spread at all."""
    return torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
