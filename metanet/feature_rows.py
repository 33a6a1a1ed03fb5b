"""Features of N networks: some of them are chosen, counted, laid one after the other, moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """Networks of several weight spaces.

    Attributes:
        parts: Flat params ``[N, P]`` of the networks of each weight space, by its key.
        order: For each network, its place when the parts are laid one after the other.
    """

    parts: dict[str, Tensor]
    order: Tensor

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Tensor | slice) -> "Mixed":
        """Some of the networks, in the order of the index."""
        kept = self.order[index].sort()
        parts, start = {}, 0
        for key, tensor in self.parts.items():
            inside = (kept.values >= start) & (kept.values < start + len(tensor))
            if inside.any():
                parts[key] = tensor[kept.values[inside] - start]
            start += len(tensor)
        return Mixed(parts, kept.indices.argsort())

    def to(self, device: torch.device | str) -> "Mixed":
        """Move to a device."""
        moved = {key: tensor.to(device) for key, tensor in self.parts.items()}
        return Mixed(moved, self.order.to(device))


Features = Tensor | dict[str, Tensor] | Mixed
"""What a metanet reads of N networks: each tensor has N rows."""


def rows(features: Features, index: Tensor | slice) -> Features:
    """Some of the networks."""
    return _each(features, lambda part: part[index])


def to_device(features: Features, device: torch.device | str) -> Features:
    """Move to a device."""
    return _each(features, lambda part: part.to(device))


def count_rows(features: Features) -> int:
    """Number of networks."""
    return len(next(iter(features.values())) if isinstance(features, dict) else features)


def concatenate(parts: Sequence[Features]) -> Features:
    """Networks of several features, one after the other."""
    if len(parts) == 1:
        return parts[0]
    if mixed := [part for part in parts if isinstance(part, Mixed)]:
        return _concatenate_mixed(mixed)
    if named := [part for part in parts if isinstance(part, dict)]:
        return {name: torch.cat([part[name] for part in named]) for name in named[0]}
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def _each(features: Features, change: Callable) -> Features:
    if isinstance(features, dict):
        return {name: change(tensor) for name, tensor in features.items()}
    return change(features)


def _concatenate_mixed(parts: Sequence[Mixed]) -> Mixed:
    """Networks of the same weight space, wherever they stand, become one part."""
    pieces: dict[str, list[Tensor]] = {}
    places: dict[str, list[Tensor]] = {}  # of the rows of each piece among all networks
    first = 0
    for part in parts:
        rows_of = (part.order.argsort() + first).split(list(map(len, part.parts.values())))
        for (key, tensor), place in zip(part.parts.items(), rows_of, strict=True):
            pieces.setdefault(key, []).append(tensor)
            places.setdefault(key, []).append(place)
        first += len(part)
    laid = torch.cat([place for key in places for place in places[key]])
    return Mixed({key: torch.cat(tensors) for key, tensors in pieces.items()}, laid.argsort())
