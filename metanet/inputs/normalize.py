"""Normalization fitted on training networks, kept in buffers.

It is robust against a few networks with huge weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec, MetanetModule
from metanet.inputs.features import flat_free
from zoo.params import Params, free_entries

LIMIT = 20.0
"""Largest absolute value of a normalized entry."""


class _Norm(nn.Module):
    """A center and a scale, or several, in buffers; the identity at the start."""

    center: Tensor
    scale: Tensor

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("center", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))


class TensorNorm(_Norm):
    """One center and one scale per parameter tensor, so that permuting neurons commutes with it.

        z = clamp((x - center_t) / scale_t, -LIMIT, LIMIT)

    Center and scale are medians, over the training networks, of the mean and the root mean square
    around the center. (Scaling every *entry* separately breaks permutation invariance and did worse
    even for the flat MLP, which has none to break.)
    """

    def __init__(self, sizes: Sequence[int]):
        """Start as the identity.

        Args:
            sizes: Number of columns of each tensor, in order.
        """
        super().__init__(sum(sizes))
        self.sizes = list(sizes)

    def summarize(self, features: Any) -> Float[Tensor, "N T 2"]:
        """Mean and variance of each tensor of networks.

        Args:
            features: Free entries.

        Returns:
            What `settle` needs, float64.
        """
        return torch.stack([moments(piece) for piece in features.split(self.sizes, dim=1)], dim=1)

    def settle(self, summaries: Float[Tensor, "N T 2"]) -> None:
        """Set center and scale from summaries of the training networks."""
        centers, scales = self.center.split(self.sizes), self.scale.split(self.sizes)
        for at, (center, scale) in enumerate(zip(centers, scales, strict=True)):
            center[:], scale[:] = center_and_scale(summaries[:, at])

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Normalize."""
        return ((x - self.center) / self.scale).clamp(-LIMIT, LIMIT)


class ParamsNorm(_Norm):
    """The same for params that stay tensors.

    A center and a scale per tensor are all that it keeps, so it fits other sizes too.

        z = clamp((factor x - center_t) / scale_t, -LIMIT, LIMIT)

    Fixed entries become zero.
    """

    def __init__(
        self,
        spec: InputSpec,
        factors: Mapping[str, Tensor] | None = None,
        centered: bool = True,
    ):
        """Start as a multiplication by the factors.

        Args:
            spec: Weight space and masks.
            factors: For some tensors, what their entries are multiplied with first, `[*shape]`.
            centered: Whether there is a center; without one, flipping signs of neurons commutes
                with it, too.
        """
        super().__init__(len(spec.space.tensors))
        self.centered, self.names = centered, list(spec.space.tensors)
        masks = {name: mask.bool() for name, mask in spec.free.items()}
        self.factors, self.masks = TensorsByName(factors or {}), TensorsByName(masks)

    def summarize(self, features: Any) -> Float[Tensor, "N T 2"]:
        """Mean and variance of the free entries of each tensor of networks.

        Args:
            features: Full params, `[N, *shape]`.

        Returns:
            What `settle` needs, float64; zeros for a tensor without free entries.
        """
        scaled = {name: self._scaled(name, features[name]) for name in self.names}
        entries = free_entries(scaled, self.masks.named())
        by_tensor = [moments(x.reshape(len(x), -1)) for x in entries.values()]
        return torch.stack(by_tensor, dim=1)

    def settle(self, summaries: Float[Tensor, "N T 2"]) -> None:
        """Set center and scale from summaries of the training networks."""
        for at in range(len(self.names)):
            self.center[at], self.scale[at] = center_and_scale(summaries[:, at], self.centered)

    def forward(self, params: Params) -> Params:
        """Normalize.

        Args:
            params: Full params `[B, *shape]`.

        Returns:
            Tensors of the same shapes.
        """
        masks, normal = self.masks.named(), {}
        for at, name in enumerate(self.names):
            x = (self._scaled(name, params[name]) - self.center[at]) / self.scale[at]
            x = x.clamp(-LIMIT, LIMIT)
            normal[name] = torch.where(masks[name], x, torch.zeros_like(x)) if name in masks else x
        return normal

    def _scaled(self, name: str, x: Tensor) -> Tensor:
        factors = self.factors.named()
        return x * factors[name] if name in factors else x


class TensorsByName(nn.Module):
    """Constants that move with a module and are not saved; their names may have dots."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        """Keep.

        Args:
            tensors: Constants by name.
        """
        super().__init__()
        self.names = list(tensors)
        for at, tensor in enumerate(tensors.values()):
            self.register_buffer(str(at), tensor, persistent=False)

    def named(self) -> dict[str, Tensor]:
        """The constants, where the module is."""
        return dict(zip(self.names, self.buffers(), strict=True))


class ColumnNorm(_Norm):
    """One center and one scale per column, for features that are statistics already.

        z = asinh((x - median) / (interquartile range / 1.349))

    The inverse hyperbolic sine is the identity near 0 and a logarithm far out: variances span many
    decades.
    """

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


# its square is finite in float32, which asinh needs; statistics of diverged networks go far beyond
_HUGE = 1e15


def moments(x: Float[Tensor, "N F"]) -> Float[Tensor, "N 2"]:
    """Mean and variance of the entries of each network, float64; zeros if there are none.

        mean((x - c)^2) = variance + (mean - c)^2

    so that the mean square around a center can be found after all networks have been seen.

    Args:
        x: Entries.

    Returns:
        Both, side by side.
    """
    if not x.shape[1]:
        return torch.zeros(len(x), 2, dtype=torch.float64, device=x.device)
    variance, mean = torch.var_mean(x.double(), dim=1, correction=0)
    return torch.stack([mean, variance], dim=1)


def center_and_scale(
    summaries: Float[Tensor, "N 2"], centered: bool = True
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Medians over networks of the mean (0 if not centered) and of the root mean square around it.

    Args:
        summaries: `moments` of the networks.
        centered: Whether the center is the median of the means.

    Returns:
        Center and scale; a scale of 1 where there is no spread at all.
    """
    mean, variance = summaries.unbind(1)
    center = mean.median() if centered else mean.new_zeros(())
    return center, _safe((variance + (mean - center).square()).sqrt().median())


def _safe(scale: Tensor) -> Tensor:
    """A scale to divide by: 1 where there is no spread at all in float32."""
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))


class Normalized(MetanetModule):
    """Base of metanets whose `norm` is all that is calibrated."""

    norm: TensorNorm | ParamsNorm

    def calibrate(self, pieces: Iterable[Any]) -> None:
        """Fit the normalization to the training networks."""
        self.norm.settle(joined(self.norm.summarize(piece) for piece in pieces))


class FlatNormalized(Normalized):
    """Base of metanets that read the flat vector of free entries."""

    def __init__(self, spec: InputSpec):
        """Prepare.

        Args:
            spec: Weight space and masks.
        """
        super().__init__()
        self.spec = spec
        self.norm = TensorNorm(list(spec.free_sizes.values()))

    def features(self, networks: Mapping[str, Tensor]) -> Float[Tensor, "N D"]:
        """Flat free entries."""
        return flat_free(self.spec, networks)


def joined(parts: Iterable[Tensor]) -> Tensor:
    """Concatenate small tensors that are made between large ones.

    Each is copied as it comes: one that stays in between keeps an allocator from joining the room
    of the large ones.

    Args:
        parts: Tensors with one leading axis, at least one of them.

    Returns:
        All of them.
    """
    room, count = torch.empty(0), 0
    for part in parts:
        if count + len(part) > len(room):
            larger = part.new_empty(2 * (count + len(part)), *part.shape[1:])
            if count:
                larger[:count] = room[:count]
            room = larger
        room[count : count + len(part)] = part
        count += len(part)
    return room[:count]
