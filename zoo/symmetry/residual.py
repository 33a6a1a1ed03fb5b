"""How exactly networks have symmetries: scaling generators, changes of outputs, and the report of what was found.

The measurement itself is `zoo.symmetry.action.symmetry_residual`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.params import Params
from zoo.symmetry.axes import scale_of_axis
from zoo.symmetry.bilinear import diagonal_residual, pairs, scaling_terms
from zoo.weight_space import NeuronGroup, WeightSpace, labels

KINDS: tuple[str, ...] = ("permutation", "sign", "scale")


@dataclass(frozen=True, eq=False)
class SymmetryReport:
    """What symmetries networks have, group by group, declared or not; `print` it for a table.

    Attributes:
        groups: The groups that were tested, as the space declares them.
        scale: For a group `[*batch, size]`, `|<grad L, xi_j>| / (|grad_j L| |xi_j|)` for each
            neuron `j`.
        sign: For a group `[*batch, size]`, the largest change of the outputs, over the largest
            output, if neuron `j` changes its sign.
        permutation: For a group `[*batch]`, the same for the worst of the sampled permutations.
        tolerance: Below it a symmetry counts as found.
    """

    groups: Mapping[str, NeuronGroup]
    scale: Mapping[str, Float[Tensor, "*batch _"]]
    sign: Mapping[str, Float[Tensor, "*batch _"]]
    permutation: Mapping[str, Float[Tensor, "*batch"]]
    tolerance: float

    def worst(self, group: str, kind: str) -> float:
        """The largest residual of one of `KINDS`, over all networks and neurons of a group."""
        values = {"permutation": self.permutation, "sign": self.sign, "scale": self.scale}[kind][
            group
        ]
        return float(values.nan_to_num(nan=math.inf, posinf=math.inf).max())

    def declared(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry that the space declares for a group."""
        scaling = self.groups[group].scaling
        flags = (
            self.groups[group].permutable,
            scaling in ("sign", "any"),
            scaling in ("positive", "any"),
        )
        return tuple(kind for kind, flag in zip(KINDS, flags, strict=True) if flag)

    def found(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry that all networks have, declared or not."""
        return tuple(kind for kind in KINDS if self.worst(group, kind) < self.tolerance)

    def removed(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry that were tested and not found: a construction took them, or the layer never had them."""
        return tuple(kind for kind in KINDS if kind not in self.found(group))

    def unsound(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry that are declared and not found: errors of the weight space."""
        return tuple(kind for kind in self.declared(group) if kind in self.removed(group))

    def __str__(self) -> str:
        rows = [["group", "size", *KINDS, "declared", "found", "removed"]]
        for name, group in self.groups.items():
            lists = [self.declared(name), self.found(name), self.removed(name)]
            texts = [", ".join(kinds) or "-" for kinds in lists]
            texts[-1] += (
                f"  DECLARED, BUT NOT FOUND: {', '.join(self.unsound(name))}"
                if self.unsound(name)
                else ""
            )
            rows.append(
                [
                    name,
                    str(group.size),
                    *(f"{self.worst(name, kind):.1e}" for kind in KINDS),
                    *texts,
                ]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(
            [*lines, f"(largest residual of each kind; found: below {self.tolerance:.1e})"]
        )


def candidates(space: WeightSpace) -> list[str]:
    """Groups that may have symmetries: those that are written and read, or declare one; if there are none, all of the tensors.

    Args:
        space: The weight space.

    Returns:
        Names of the groups, in the order of the space.
    """
    patterns = [space.pattern(name) for name in space.tensors]
    written = {
        label.group for pattern in patterns for axis in pattern.written for label in labels(axis)
    }
    read = {label.group for pattern in patterns for axis in pattern.read for label in labels(axis)}
    declared = {
        name for name, group in space.groups.items() if group.permutable or group.scaling != "none"
    }
    likely = (written & read) | (declared & (written | read))
    return [name for name in space.groups if name in (likely or written | read)]


def scaling_generator(
    space: WeightSpace, params: Mapping[str, Tensor], group: str, neuron: int
) -> Params:
    """The direction in which params move when one neuron of a group is scaled up.

    xi = d/dt act(exp(t e_neuron), params) at t = 0

    Each entry counts with the power of the neuron's scale that acts on it: 1 where it is written,
    -1 where it is read, twice that for `h^2`, and the sum of the powers where a tensor names the
    group more than once.

    Args:
        space: The weight space.
        params: Tensors `[*batch, *shape]`.
        group: Name of the group.
        neuron: Which neuron.

    Returns:
        Tensors `[*batch, *shape]`, only those that name the group.

    References:
        Kunin et al. 2021, arXiv 2012.04728, section 3; Gluch and Urbanke 2021, arXiv 2104.05508.
    """
    return {
        name: params[name] * power.to(params[name])
        for name, power in _powers(space, group, neuron).items()
    }


def _powers(space: WeightSpace, group: str, neuron: int) -> Params:
    """The power of a neuron's scale that acts on each entry, for the tensors that name the group."""
    scale = torch.ones(space.groups[group].size, dtype=torch.float64)
    scale[neuron] = math.e
    powers = {}
    for name, shape in space.shapes.items():
        pattern = space.pattern(name)
        if not any(label.group == group for axis in pattern.axes for label in labels(axis)):
            continue
        powers[name] = torch.zeros(shape, dtype=torch.float64)
        for i, (axis, side) in enumerate(zip(pattern.axes, pattern.powers, strict=True)):
            factor = scale_of_axis(space, {group: scale}, axis)
            if factor is not None:
                powers[name] += side * factor.log().round().reshape(
                    -1, *(1,) * (len(pattern.axes) - i - 1)
                )
    return powers


def scaling_residual(
    space: WeightSpace, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor], group: str
) -> Float[Tensor, "N h"]:
    """How far gradients are from being orthogonal to the scaling of each neuron of a group.

    residual_j = |<grad, xi_j>| / (|grad restricted to the entries that xi_j moves| |xi_j|), and 0
    for 0 / 0

    Args:
        space: The weight space.
        params: Tensors `[N, *shape]`.
        gradients: Gradients of a loss, of the same shapes; of tensors that are absent they are 0.
        group: Name of the group.

    Returns:
        The residual of each neuron, between 0 and 1.
    """
    terms = [term for term in scaling_terms(space, group) if term.block.tensor in gradients]
    if not terms:
        first = next(iter(params.values()))
        return first.new_zeros(len(first), space.groups[group].size)
    return diagonal_residual(terms, pairs(params, gradients, {term.block.tensor for term in terms}))


def tensors_in(outputs: Any) -> Iterator[Tensor]:
    """The tensors in the outputs of a network: a tensor, or tuples, lists and mappings of them; anything else is skipped."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping | list | tuple):
        for part in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from tensors_in(part)


def differences(
    before: Sequence[Tensor], after: Sequence[Tensor]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The largest difference between outputs, and the largest output before, for each network.

    Args:
        before: Tensors `[N, ...]`.
        after: Tensors of the same shapes.

    Returns:
        `[N]` and `[N]`, float64; a difference is infinite if an entry is NaN, or infinite, on one
        side only.

    Raises:
        ValueError: If there is no tensor, or tensors are of different number or shape.
    """
    shapes = [[list(tensor.shape[1:]) for tensor in tensors] for tensors in (before, after)]
    if not before or shapes[0] != shapes[1]:
        raise ValueError(
            f"outputs: expected tensors of the same shapes before and after, got {shapes[0]} and {shapes[1]}"
        )
    change, size = (
        torch.zeros(before[0].shape[0], dtype=torch.float64, device=before[0].device)
        for _ in range(2)
    )
    for pair in zip(before, after, strict=True):
        old, new = (
            t.reshape(t.shape[0], -1).to(torch.promote_types(t.dtype, torch.float64)) for t in pair
        )
        same = (old == new) | (old.isnan() & new.isnan())
        moved = torch.where(same, 0, (old - new).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
        if old.shape[1]:
            change = torch.maximum(change, moved.amax(1))
            size = torch.maximum(size, torch.where(old.isfinite(), old.abs(), 0).amax(1))
    return change, size
