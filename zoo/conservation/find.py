"""Which laws a loss keeps: candidates from the patterns of a weight space, confirmed on gradients."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from zoo.conservation.laws import Law, balance, matrix, scale, shift, sides
from zoo.conservation.quantities import residual, with_zeros
from zoo.params import Params, batch_shape, perturb
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

    Each candidate is tested on gradients in float64, at generic points near some params, and kept
    if its residual is at rounding level at all of them. Only the kinds of `zoo.conservation.laws`
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
    >>> mlp, x, y = build_mlp((4,), 3, hidden=(8,)), torch.ones(5, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    >>> params = mlp.init(torch.Generator().manual_seed(0))
    >>> [law.name for law in find_laws(mlp.space, lambda p: F.cross_entropy(mlp.apply(p, x), y), params)]
    ['h1.balance', 'layers.1.weight.shift', 'layers.1.bias.shift']
    """
    if lead := batch_shape(space, params):
        raise ValueError(
            f"find_laws: expected the params of one network, got leading axes {list(lead)}"
        )
    source = generator or torch.Generator().manual_seed(0)
    points = [perturb(params, source) for _ in range(num_points)]
    gradients = [_gradient(loss, point, free or {}) for point in points]
    used = {
        name for name in space.tensors if all(bool(gradient[name].any()) for gradient in gradients)
    }

    def holds(law: Law) -> bool:
        pairs = zip(points, gradients, strict=True)
        worst = [
            residual(law, point, with_zeros([law], point, gradient)).max()
            for point, gradient in pairs
        ]
        return not used.isdisjoint(law.tensors) and all(float(value) < tolerance for value in worst)

    found: list[Law] = []
    for alternatives in candidates(space, used):
        scaled = {name for law in found if law.kind == "scale" for name in law.tensors}
        fresh = (
            law for law in alternatives if law.kind != "scale" or scaled.isdisjoint(law.tensors)
        )
        found += [law for law in [next(filter(holds, fresh), None)] if law is not None]
    return tuple(found)


def candidates(space: WeightSpace, used: Collection[str] | None = None) -> list[Alternatives]:
    """All laws that the patterns of a space make possible.

    Args:
        space: The weight space.
        used: Tensors whose scales and shifts count, all if None.

    Returns:
        For each structure its alternatives, the strongest first: of those that hold, the first
        implies the others.
    """
    names = [name for name in space.tensors if used is None or name in used]
    written: dict[str, tuple[Dim, ...]] = {}
    several = set()
    for block in cut_blocks(space):
        own = tuple(block.dims[i] for i in sides(space, block)[0])
        if written.setdefault(block.tensor, own) != own:
            several.add(block.tensor)
    whole = {name: written[name] for name in names if name not in several}
    found = [_of_group(space, group) for group in hidden_groups(space)]
    found += [_scales(space, whole, sets) for sets in _before_norms(space, whole)]
    for name, own in whole.items():
        found.append(tuple(shift(space, name, each) for each in reversed(range(len(own)))))
    return [alternatives for alternatives in found if alternatives]


def _of_group(space: WeightSpace, group: str) -> Alternatives:
    """The mixing of linear neurons, or the scale of each."""
    terms = scaling_terms(space, group)
    if not terms:
        return ()
    linear = space.groups[group].scaling == "any" and all(abs(term.power) == 1 for term in terms)
    return (matrix(space, group), balance(space, group)) if linear else (balance(space, group),)


def _before_norms(
    space: WeightSpace, whole: Mapping[str, tuple[Dim, ...]]
) -> list[list[list[str]]]:
    """Sets of tensors that may stand before a norm together: a weight, a weight and a bias, all that adds into a stream."""
    found = []
    for name, own in whole.items():
        if space.pattern(name).read:
            biases = [
                other for other in whole if whole[other] == own and not space.pattern(other).read
            ]
            found.append([[name], *([name, bias] for bias in biases)])
    for group in space.groups:
        writing = {
            name: [dim.power for dim in own if dim.group == group] for name, own in whole.items()
        }
        unscaled = [name for name, powers in writing.items() if powers and not any(powers)]
        found.append([unscaled or [name for name, powers in writing.items() if powers]])
    return found


def _scales(
    space: WeightSpace, whole: Mapping[str, tuple[Dim, ...]], sets: list[list[str]]
) -> Alternatives:
    found = []
    for tensors in filter(None, sets):
        shared = min(len(whole[name]) for name in tensors)
        same = [
            each for each in range(shared + 1) if len({whole[name][:each] for name in tensors}) == 1
        ]
        found += [scale(space, tensors, each) for each in reversed(same)]
    return tuple(found)


def _gradient(
    loss: Callable[[Params], Tensor], point: Params, free: Mapping[str, Tensor]
) -> Params:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in point.items()}
    with torch.enable_grad():
        found = torch.autograd.grad(
            loss(dict(leaves)), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
    return {
        name: g * free[name].to(g) if name in free else g
        for name, g in zip(leaves, found, strict=True)
    }
