"""How conserved quantities move where training is no gradient flow, and what they bound.

With a step from `params` to `after`, the update `u = after - (1 - lr decay) params` and the form
`Q(a, b)` of a quadratic law

    Q(after) - Q(params)
        = ((1 - lr decay)^2 - 1) Q(params) + Q(u, u) + 2 (1 - lr decay) Q(params, u)

For plain SGD `u = -lr grad`, and the last term is 0 by the law.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.conservation.laws import Law
from zoo.conservation.quantities import Laws, bilinear, checked, with_gradients
from zoo.params import expand_right
from zoo.symmetry.blocks import Block

Rate = float | Float[Tensor, "*batch"]


@dataclass(frozen=True, eq=False)
class Drift:
    """The change of one law's quantity in one step, in four terms `[*batch, *law.shape]`.

    Of a shift, which is linear, they are 0, `-lr decay Q`, `Q(u + lr grad)` and `-lr Q(grad)`.

    Attributes:
        discretization: `Q(u, u)`: the step is not infinitely small. `lr^2 Q(grad, grad)` for SGD.
        decay: What weight decay takes away: `((1 - lr decay)^2 - 1) Q`.
        optimizer: `2 (1 - lr decay) Q(params, u + lr grad)`: the update is not along the gradient.
            0 for SGD.
        broken: `-2 lr (1 - lr decay) Q(params, grad)`: the law does not hold. 0 up to rounding if
            it does.
    """

    discretization: Float[Tensor, "..."]
    decay: Float[Tensor, "..."]
    optimizer: Float[Tensor, "..."]
    broken: Float[Tensor, "..."]

    @property
    def total(self) -> Float[Tensor, "..."]:
        """The change of the quantity."""
        return self.discretization + self.decay + self.optimizer + self.broken


def predicted_drift(
    of: Laws,
    params: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    lr: Rate,
    weight_decay: Rate = 0.0,
) -> dict[str, Float[Tensor, "..."]]:
    """The exact change of every quantity in one step of SGD with coupled weight decay, no momentum.

    Q' = (1 - lr decay)^2 Q + lr^2 Q(grad, grad),    for a shift    Q' = (1 - lr decay) Q

    For the balance of neurons `Q(grad, grad) = k |g_out|^2 - |g_in|^2 - g_b^2`.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors `[*batch, *shape]` before the step.
        gradients: Gradients of the loss there, without weight decay; of tensors that are absent
            they are 0.
        lr: Step size, one or `[*batch]`.
        weight_decay: Coefficient of `decay |params|^2 / 2` in the loss, one or `[*batch]`; the same
            for all tensors of a law.

    Returns:
        For each law by name `Q' - Q`, `[*batch, *law.shape]`; exact for laws whose residual is 0.

    Raises:
        ValueError: If a tensor that a law is about is missing.
    """
    named, full = with_gradients(of, params, gradients)
    drift = {}
    for law in named:
        now = bilinear(law, params, params)
        drift[law.name] = _decay(law, now, lr, weight_decay)
        if law.kind != "shift":
            drift[law.name] = drift[law.name] + _like(lr, now) ** 2 * bilinear(law, full, full)
    return drift


def split_drift(
    of: Laws,
    params: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    lr: Rate,
    weight_decay: Rate = 0.0,
) -> dict[str, Drift]:
    """What moved every quantity in one step of any optimizer.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors `[*batch, *shape]` before the step.
        after: The same after it.
        gradients: Gradients of the loss before it, without weight decay; of tensors that are absent
            they are 0.
        lr: Step size, one or `[*batch]`.
        weight_decay: Coefficient of coupled decay, of SGD, or of decoupled decay, of AdamW; one or
            `[*batch]`.

    Returns:
        For each law by name the terms of `Q(after) - Q(params)`.

    Raises:
        ValueError: If a tensor that a law is about is missing.
    """
    named, full = with_gradients(of, params, gradients)
    checked(named, after)
    return {law.name: _split(law, params, after, full, lr, weight_decay) for law in named}


def _split(
    law: Law,
    params: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    lr: Rate,
    weight_decay: Rate,
) -> Drift:
    """What moved the quantity of one law."""
    update, extra = {}, {}
    for name in law.tensors:
        before = params[name]
        update[name] = after[name] - _kept(lr, weight_decay, before) * before
        extra[name] = update[name] + _like(lr, before) * gradients[name]
    now = bilinear(law, params, params)
    step, kept = _like(lr, now), _kept(lr, weight_decay, now)
    decay = _decay(law, now, lr, weight_decay)
    if law.kind == "shift":
        broken = -step * bilinear(law, gradients, gradients)
        return Drift(torch.zeros_like(now), decay, bilinear(law, extra, extra), broken)
    optimizer = 2 * kept * bilinear(law, params, extra)
    broken = -2 * step * kept * bilinear(law, params, gradients)
    return Drift(bilinear(law, update, update), decay, optimizer, broken)


def norm_bounds(
    of: Laws, params: Mapping[str, Tensor], norms: Mapping[str, Float[Tensor, "*batch"]]
) -> dict[str, Float[Tensor, "*batch"]]:
    """Bounds on the norms of all tensors along gradient flow that follow from the norms of some.

    Summed over its neurons a quadratic law says `k |W_out|^2 = |W_in|^2 + |b|^2 + constant`. So the
    norm of one layer bounds those of all layers of a chain without biases, and the norm of the last
    layer those of all layers of a chain with biases.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors `[*batch, *shape]` at any time of the flow; they give the constants.
        norms: For some tensors a bound on the norm at the time that counts, `[*batch]`.

    Returns:
        For each tensor that a quadratic law bounds `[*batch]`, infinite where nothing follows.

    Raises:
        ValueError: If a tensor that a law is about is missing.

    References:
        Du, Hu and Lee 2018, arXiv 1806.00900, section 2; Gluch and Urbanke 2021, arXiv 2104.05508
        (boundedness).
    """
    relations = [_relation(law, params) for law in checked(of, params) if law.kind != "shift"]
    squares: dict[Block, Tensor] = {}
    for weights, total in relations:
        for block in weights:
            known = norms.get(block.tensor, torch.tensor(math.inf))
            squares[block] = known.square() + torch.zeros_like(total)
    for _ in relations:  # what is known may have to pass through all of them
        for weights, total in relations:
            _tighten(squares, weights, total)
    return {
        name: _norm(name, squares, params[name], norms)
        for name in dict.fromkeys(block.tensor for block in squares)
    }


def _tighten(
    squares: dict[Block, Tensor], weights: Mapping[Block, int], total: Float[Tensor, "*batch"]
) -> None:
    """Bounds on the squares of blocks that follow from the others in one relation."""
    known = {block: weight * squares[block] for block, weight in weights.items()}
    for block, weight in weights.items():
        others = [known[other] for other, factor in weights.items() if factor * weight < 0]
        bound = (total - sum(others, torch.zeros_like(total))) / weight
        squares[block] = torch.minimum(squares[block], bound.clamp(min=0))


def _norm(
    name: str, squares: Mapping[Block, Tensor], tensor: Tensor, norms: Mapping[str, Tensor]
) -> Float[Tensor, "*batch"]:
    """The bound on a tensor from those on its blocks, if they are all that it has."""
    blocks = [block for block in squares if block.tensor == name]
    total = torch.stack([squares[block] for block in blocks]).sum(0).sqrt()
    if sum(block.view(tensor).numel() for block in blocks) < tensor.numel():
        total = torch.full_like(total, math.inf)
    return torch.minimum(total, norms[name]) if name in norms else total


def _relation(
    law: Law, params: Mapping[str, Tensor]
) -> tuple[dict[Block, int], Float[Tensor, "*batch"]]:
    """Weights `c`, not 0, and total of a law over its neurons: `sum of c |block|^2 = total`."""
    weights = Counter[Block]()
    for term in law.terms:
        weights[term.block] -= term.power
    values = bilinear(law, params, params)
    if law.kind == "matrix":
        values = values.diagonal(dim1=-2, dim2=-1)
    axes = len(law.shape) - (law.kind == "matrix")
    total = values.flatten(values.dim() - axes).sum(-1) if axes else values
    return {block: weight for block, weight in weights.items() if weight}, total


def _kept(lr: Rate, weight_decay: Rate, tensor: Tensor) -> float | Tensor:
    """The share of a tensor that weight decay leaves in one step."""
    return 1 - _like(lr, tensor) * _like(weight_decay, tensor)


def _decay(law: Law, now: Tensor, lr: Rate, weight_decay: Rate) -> Float[Tensor, "..."]:
    """What weight decay alone does to the quantity of a law."""
    rate = lr * weight_decay
    # (1 - rate)^2 - 1 of a quadratic law, without cancellation
    change = -rate if law.kind == "shift" else rate * (rate - 2)
    return _like(change, now) * now


def _like(value: Rate, tensor: Tensor) -> float | Tensor:
    return expand_right(value, tensor).to(tensor) if isinstance(value, Tensor) else value
