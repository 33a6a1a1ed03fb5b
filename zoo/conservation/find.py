"""Which laws a loss keeps: those that the patterns of a space allow, confirmed on gradients."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from zoo.conservation.laws import Law, balance, matrix, scale, shift
from zoo.conservation.quantities import residual, with_gradients
from zoo.params import Params, batch_shape, perturb, trained_part
from zoo.symmetry.bilinear import scaling_terms
from zoo.symmetry.blocks import Dim, cut_blocks
from zoo.symmetry.residual import hidden_groups
from zoo.weight_space import WeightSpace

Alternatives = tuple[Law, ...]


def find_laws(
    space: WeightSpace,
    loss: Callable[[Params], Tensor],
    params: Mapping[str, Tensor],
    free: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-10,
    num_points: int = 3,
) -> tuple[Law, ...]:
    """The laws that a loss keeps, of all that the patterns of a space make possible.

    Each is tested on gradients in float64, at generic points near some params, and kept if its
    residual is at rounding level at all of them. Only the kinds of `zoo.conservation.laws`
    are looked for, and scales and shifts only of tensors that have a gradient. What another law
    implies is left out, such as the balance of a group that has a matrix law.

    Args:
        space: The weight space.
        loss: The loss of one network on some data, `loss(params) -> scalar`, as training computes
            it; called in float64.
        params: Parameters of one network.
        free: Masks `[*shape]`, True where an entry is trained.
        generator: Source of the points, seeded with 0 if None.
        tolerance: Largest residual of a law that holds. Scales before a norm hold up to its
            epsilon; 1e-3 lets them pass.
        num_points: Number of points.

    Returns:
        The laws, those of groups first.

    Raises:
        ValueError: If there is more than one network.

    >>> import torch.nn.functional as F
    >>> from zoo.architectures import build_mlp
    >>> mlp, x, y = build_mlp((4,), 3, hidden=(8,)), torch.ones(5, 4).double(), torch.arange(5) % 3
    >>> def loss(params):
    ...     return F.cross_entropy(mlp.apply(params, x), y)
    >>> laws = find_laws(mlp.space, loss, mlp.init(torch.Generator().manual_seed(0)))
    >>> [law.name for law in laws]
    ['h1.balance', 'layers.1.weight.shift', 'layers.1.bias.shift']
    """
    if lead := batch_shape(space, params):
        raise ValueError(
            f"find_laws: expected the params of one network, got leading axes {list(lead)}"
        )
    source = generator or torch.Generator().manual_seed(0)
    points = [perturb(params, source) for _ in range(num_points)]
    gradients = [_gradient(loss, point, free or {}) for point in points]
    used = {name for name in space.tensors if all(bool(g[name].any()) for g in gradients)}
    kept: list[Law] = []
    for alternatives in possible_laws(space, used):
        scaled = {name for law in kept if law.kind == "scale" for name in law.tensors}
        for law in alternatives:
            implied = law.kind == "scale" and not scaled.isdisjoint(law.tensors)
            if used.isdisjoint(law.tensors) or implied:
                continue
            if _worst_residual(law, points, gradients) < tolerance:
                kept.append(law)
                break
    return tuple(kept)


def _worst_residual(law: Law, points: Sequence[Params], gradients: Sequence[Params]) -> float:
    """The largest residual of a law at any point; infinite if one is NaN."""
    largest = [
        float(residual(law, point, with_gradients([law], point, gradient)[1]).max())
        for point, gradient in zip(points, gradients, strict=True)
    ]
    return math.inf if any(map(math.isnan, largest)) else max(largest, default=0.0)


def possible_laws(space: WeightSpace, used: Collection[str]) -> list[Alternatives]:
    """All laws that the patterns of a space make possible.

    Args:
        space: The weight space.
        used: Tensors whose scales and shifts count.

    Returns:
        For each structure its alternatives, the strongest first: of those that hold, the first
        implies the others.
    """
    written: dict[str, set[tuple[Dim, ...]]] = {}
    for block in cut_blocks(space):
        dims = tuple(block.dims[i] for i in block.written)
        written.setdefault(block.tensor, set()).add(dims)
    whole = {name: dims.pop() for name, dims in written.items() if len(dims) == 1 and name in used}
    structures = [_of_group(space, group) for group in hidden_groups(space)]
    structures += [_scales(space, whole, sets) for sets in _before_norms(space, whole)]
    for name, dims in whole.items():
        structures.append(tuple(shift(space, name, each) for each in reversed(range(len(dims)))))
    return [alternatives for alternatives in structures if alternatives]


def _of_group(space: WeightSpace, group: str) -> Alternatives:
    """The mixing of linear neurons, or the scale of each."""
    powers = {abs(term.power) for term in scaling_terms(space, group)}
    if not powers:
        return ()
    alone = balance(space, group)
    linear = space.groups[group].scaling == "any" and powers == {1}
    return (matrix(space, group), alone) if linear else (alone,)


def _before_norms(
    space: WeightSpace, whole: Mapping[str, tuple[Dim, ...]]
) -> list[list[list[str]]]:
    """Sets of tensors that may stand before a norm together.

    A weight, a weight and a bias, all that adds into a stream.

    Args:
        space: The weight space.
        whole: The axes that each tensor without direct sums writes.

    Returns:
        The sets, those of one structure together.
    """
    reading = [name for name in whole if space.pattern(name).read]
    structures = []
    for name in reading:
        biases = [bias for bias in whole if whole[bias] == whole[name] and bias not in reading]
        structures.append([[name], *([name, bias] for bias in biases)])
    for group in space.groups:
        powers = {n: [dim.power for dim in whole[n] if dim.group == group] for n in whole}
        writing = [name for name in whole if powers[name]]
        unscaled = [name for name in writing if not any(powers[name])]
        structures.append([unscaled or writing])
    return structures


def _scales(
    space: WeightSpace, whole: Mapping[str, tuple[Dim, ...]], sets: list[list[str]]
) -> Alternatives:
    """The scales of sets of tensors, as fine as the axes that they share allow."""
    laws = []
    for tensors in filter(None, sets):
        shared = min(len(whole[name]) for name in tensors)
        for each in reversed(range(shared + 1)):
            if len({whole[name][:each] for name in tensors}) == 1:
                laws.append(scale(space, tensors, each))
    return tuple(laws)


def _gradient(
    loss: Callable[[Params], Tensor], point: Params, free: Mapping[str, Tensor]
) -> Params:
    """The gradient of a loss by all params, 0 at fixed entries."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in point.items()}
    with torch.enable_grad():
        value = loss(dict(leaves))
        slopes = torch.autograd.grad(
            value, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
    return trained_part(dict(zip(leaves, slopes, strict=True)), free)
