"""Asymmetric twins of an architecture: the same functions, without the parameter symmetries.

Each function takes an architecture and returns one with constants (masks, fixed entries, mixing
matrices, offsets) and with a weight space that no longer declares the symmetries it lost. Free
entries start with the distribution of the standard network; a neuron of a W-asymmetric layer
therefore sees pre-activation variance `(d - n_fix) / (3 d) + n_fix kappa^2` for unit inputs instead
of `1 / 3`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from zoo.architectures.base import Architecture, written_axis
from zoo.architectures.masks import Amount, draw_fixed, draw_mixing, draw_offset
from zoo.pattern import labels
from zoo.weight_space import WeightSpace

Fixed = tuple[Tensor, Tensor]
"""Which entries of a tensor are free, and the values of the others."""


def w_asymmetric(
    architecture: Architecture,
    generator: torch.Generator,
    n_fix: Amount | Mapping[str, Amount] = 0.25,
    kappa: float | Mapping[str, float] = 1.0,
    fix: str = "entries",
) -> Architecture:
    """Fix some entries of every linear and convolutional weight.

    W_eff = M * W + (1 - M) * F,    F ~ N(0, kappa^2)

    Every row of `M` (one output neuron or filter) has `n_fix` zeros, and no two rows of a tensor
    agree, so that no permutation of neurons maps the network onto another of the same zoo. `M` and
    `F` do not depend on `kappa` except for the scale of `F`.

    Args:
        architecture: The standard architecture.
        generator: Source of `M` and `F`.
        n_fix: Fixed entries in each row; an integer is a number, a float below 1 a fraction of the
            fan-in (rounded, at least one). A mapping gives it per tensor; a tensor with 0 is left
            as it is.
        kappa: Standard deviation of the fixed entries, 0 included, or a mapping per tensor.
        fix: `"entries"` fixes single scalars, `"filters"` whole input filters of a convolution
            (`n_fix` counts filters then).

    Returns:
        The architecture with constants `free.<tensor>` and `fixed.<tensor>`.

    Raises:
        ValueError: If an option does not fit a tensor: a row would be frozen, or rows cannot be
            distinct.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 3.1.
    """
    space = architecture.space
    weights = [name for name in space.tensors if space.pattern(name).read]
    amounts, scales = _per_tensor("n_fix", n_fix, weights), _per_tensor("kappa", kappa, weights)
    fixed: dict[str, Fixed] = {}
    for name in weights:
        kernel = [len(axis) == 1 and isinstance(axis[0], int) for axis in space.pattern(name).read]
        drawn = draw_fixed(
            name, space.shapes[name], kernel, amounts[name], scales[name], fix, generator
        )
        if drawn is not None:
            fixed[name] = drawn
    # Entries fixed at zero stay zero under a scaling, so kappa = 0 removes permutations only.
    return fix_entries(architecture, fixed, fixed, [name for name in fixed if scales[name] > 0])


def sigma_asymmetric(
    architecture: Architecture, generator: torch.Generator, std: float | None = None
) -> Architecture:
    """Replace every non-linearity by FiGLU.

    FiGLU is `sigmoid(F x) * x`, with a fixed Gaussian `F` for each axis of neurons. Groups that no
    elementwise non-linearity follows, such as the stream and the heads of a transformer, keep their
    symmetry.

    Args:
        architecture: The standard architecture.
        generator: Source of `F`.
        std: Standard deviation of the entries of `F`, `1 / sqrt(d)` for an axis of `d` neurons if
            None.

    Returns:
        The architecture with constants `mixing.<group>`.

    Raises:
        ValueError: If the architecture has no non-linearity or is a traced module, or `std` is not
            positive.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 3.2.
    """
    if architecture.is_module:
        raise ValueError(
            "sigma_asymmetric: a traced module runs its own non-linearities, which cannot be "
            "replaced; expected a named architecture, or zoo.asymmetric(module, 'sigma')"
        )
    if std is not None and not 0 < std < math.inf:
        raise ValueError(f"sigma_asymmetric: expected std > 0, got {std}")
    space, constants, mixed = architecture.space, dict(architecture.constants), set()
    gated = {name: group for name, group in space.groups.items() if group.activation != "linear"}
    if not gated:
        raise ValueError("sigma_asymmetric: the architecture has no non-linearity to replace")
    for name in gated:
        axis = written_axis(space, name)
        constants[f"mixing.{name}"] = draw_mixing(space.size(axis), std, generator)
        mixed |= {label.group for label in labels(axis)}
    figlu = {name: replace(group, activation="figlu") for name, group in gated.items()}
    space = lose_symmetry(WeightSpace({**space.groups, **figlu}, space.tensors), mixed, mixed)
    return replace(architecture, space=space, constants=constants)


def syre(architecture: Architecture, generator: torch.Generator, std: float = 0.01) -> Architecture:
    """Add a fixed random offset to every trained tensor, `W_eff = F + W`.

    Weight decay then pulls to `F` instead of to 0. The effective parameters start with the standard
    distribution; without weight decay training is that of the standard network.

    Args:
        architecture: The standard architecture.
        generator: Source of `F`.
        std: Standard deviation of the entries of `F`.

    Returns:
        The architecture with constants `offset.<tensor>`.

    Raises:
        ValueError: If `std` is not positive.

    References:
        Ziyin et al. 2024, arXiv 2408.15495.
    """
    space, constants = architecture.space, dict(architecture.constants)
    for name, shape in space.shapes.items():
        if name not in architecture.statistics:
            constants[f"offset.{name}"] = draw_offset(shape, std, generator)
    space = lose_symmetry(space, set(space.groups), set(space.groups))
    return replace(architecture, space=space, constants=constants)


def bias_asymmetric(
    architecture: Architecture, generator: torch.Generator, kappa: float = 1.0
) -> Architecture:
    """Fix all biases, those of norms included, at `F ~ N(0, kappa^2)`; everything else is trained.

    No permutation maps such a network onto another of its zoo, and yet the barrier between two
    stays: a control.

    Args:
        architecture: The standard architecture.
        generator: Source of `F`.
        kappa: Standard deviation of the fixed biases; 0 fixes them all at 0 and removes no
            symmetry.

    Returns:
        The architecture with constants `free.<tensor>` and `fixed.<tensor>` for every tensor named
        `bias`.

    Raises:
        ValueError: If the architecture has no biases, or `kappa` is negative.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 3.1.
    """
    space = architecture.space
    biases = [name for name in space.tensors if name.split(".")[-1] == "bias"]
    if not biases:
        raise ValueError(
            f"bias_asymmetric: no tensor is named bias; tensors are {list(space.tensors)}"
        )
    if not 0 <= kappa < math.inf:
        raise ValueError(f"bias_asymmetric: expected kappa >= 0, got {kappa}")
    fixed: dict[str, Fixed] = {}
    for name in biases:
        values = kappa * torch.randn(space.shapes[name], generator=generator)
        fixed[name] = torch.zeros_like(values, dtype=torch.bool), values
    broken = fixed if kappa > 0 else ()
    return fix_entries(architecture, fixed, broken, broken)


ASYMMETRIES: dict[str, Callable[..., Architecture]] = {
    "w": w_asymmetric,
    "sigma": sigma_asymmetric,
    "syre": syre,
    "bias": bias_asymmetric,
}


def fix_entries(
    architecture: Architecture,
    fixed: Mapping[str, Fixed],
    unequal: Iterable[str],
    rigid: Iterable[str],
) -> Architecture:
    """Fix entries of tensors.

    Args:
        architecture: The architecture.
        fixed: Of each tensor, which entries are free, and the values of the others.
        unequal: Tensors whose neurons no permutation moves any more.
        rigid: Tensors whose neurons no scale moves any more.

    Returns:
        The architecture with constants `free.<tensor>` and `fixed.<tensor>`.
    """
    space, constants = architecture.space, dict(architecture.constants)
    for name, (free, values) in fixed.items():
        constants |= {f"free.{name}": free, f"fixed.{name}": values}
    moved = {label.group for name in unequal for label in space.pattern(name).labels}
    scaled = {label.group for name in rigid for label in space.pattern(name).labels if label.power}
    return replace(architecture, space=lose_symmetry(space, moved, scaled), constants=constants)


def lose_symmetry(space: WeightSpace, unequal: set[str], rigid: set[str]) -> WeightSpace:
    """A space that declares less symmetry.

    Args:
        space: The space.
        unequal: Groups that lose their permutations.
        rigid: Groups that lose their scales.

    Returns:
        The space that is left.
    """
    groups = {}
    for name, group in space.groups.items():
        permutable = group.permutable and name not in unequal
        scaling = "none" if name in rigid else group.scaling
        groups[name] = replace(group, permutable=permutable, scaling=scaling)
    return WeightSpace(groups, space.tensors)


def _per_tensor(
    option: str, value: Amount | Mapping[str, Amount], tensors: list[str]
) -> Mapping[str, Amount]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(tensors, value)
    if set(value) != set(tensors):
        raise ValueError(
            f"w_asymmetric: {option} as a mapping needs exactly the weights {tensors}, "
            f"got {sorted(value)}"
        )
    return value
