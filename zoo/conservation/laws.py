"""The conservation laws of a weight space: which symmetry of its patterns keeps which quantity.

A law is a linear field `xi` of directions in which the loss does not change, so that
`<grad L, xi(params)> = 0` on every minibatch. Gradient flow `params' = -grad L` then conserves a
quantity `Q`.

    balance   a neuron's scale              Q_j = power |w_out|^2 - |w_in|^2 - b^2
    matrix    any mixing of linear neurons  Q = W_out^T W_out - W_in W_in^T
    scale     a layer before a norm         Q = |W|^2
    shift     logits before a softmax       Q = column sums of W

`declared_laws` gives those that a space declares, `possible_laws` those that are possible,
`zoo.conservation.quantities` measures them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zoo.symmetry.bilinear import Term, scaling_terms
from zoo.symmetry.blocks import Block, Dim, cut_blocks
from zoo.weight_space import WeightSpace

Kind = Literal["balance", "matrix", "scale", "shift"]


@dataclass(frozen=True)
class Law:
    """One conservation law for many neurons, channels, heads or columns at once.

    Attributes:
        name: What the law is about, then its kind: `"h1.balance"`, `"layers.2.weight.shift"`.
        kind: `"balance"`, `"matrix"`, `"scale"` or `"shift"`: the function of that name says what
            it states.
        shape: Axes of its quantity for one network.
        terms: The blocks of tensors that it is made of.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    terms: tuple[Term, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that the law is about."""
        return tuple(dict.fromkeys(term.block.tensor for term in self.terms))


def balance(space: WeightSpace, group: str) -> Law:
    """The balance of every neuron of a group, if its activation is positively homogeneous.

    Statement. With `act(a z) = a^k act(z)` for `a > 0`, `Q_j = k |w_out|^2 - |w_in|^2 - b^2` of
    neuron `j` is constant under gradient flow. `w_in` and `b` are what writes the neuron and
    `w_out` what reads it, with the powers in the patterns (`h <- x` and `y <- h^k`). After a norm,
    `w_in` is the norm's weight and `b` its bias.

    Proof. Scaling the neuron, `w_in, b -> a w_in, a b` and `w_out -> a^-k w_out`, does not change
    the function. The derivative at `a = 1` is `<g_in, w_in> + <g_b, b> - k <g_out, w_out> = 0`.
    Under the flow `dQ/dt = -2 k <w_out, g_out> + 2 <w_in, g_in> + 2 <b, g_b>`, which is twice that.

    Fails for GELU, SiLU, tanh and sine; where an entry of the neuron is fixed (W-asymmetric); with
    momentum, Adam or weight decay, which are no gradient flow (the residual stays 0).

    Args:
        space: The weight space.
        group: Name of the group.

    Returns:
        The law, of shape `[size]`.

    Raises:
        ValueError: If there is no such group, or if no tensor scales with it.

    References:
        Du, Hu and Lee 2018, arXiv 1806.00900, theorem 2.1; Gluch and Urbanke 2021, arXiv
        2104.05508; Kunin et al. 2021, arXiv 2012.04728, section 3.
    """
    terms = scaling_terms(space, group)
    if not terms:
        raise ValueError(
            f"group {group!r}: no tensor writes or reads it with a scale, so it has no balance"
        )
    return Law(f"{group}.balance", "balance", (space.groups[group].size,), terms)


def matrix(space: WeightSpace, group: str) -> Law:
    """The full balance of linear neurons: of two linear layers, or of an attention head's pairs.

    Statement. `Q = W_out^T W_out - W_in W_in^T - b b^T` of two layers with nothing between them is
    constant under gradient flow. In attention `Q` is `W_k W_k^T - W_q W_q^T`, biases with them, and
    `W_o^T W_o - W_v W_v^T`, one matrix for each head.

    Proof. `W_in, b -> B W_in, B b` and `W_out -> W_out B^-1` do not change the function, for any
    invertible `B`. The derivative along `B = 1 + t A` is
    `<A, G_in W_in^T + g_b b^T - W_out^T G_out> = 0` for every `A`, so that matrix is 0. Under the
    flow `dQ/dt` is twice its symmetric part; `trace Q` and the diagonal of `Q` are the balance of
    neurons.

    Fails if anything but a linear map stands between, rotary position embeddings and norms of
    queries and keys included; where entries are fixed; with momentum, Adam or weight decay, which
    are no gradient flow (the residual stays 0).

    Args:
        space: The weight space.
        group: Name of the group.

    Returns:
        The law, of shape `[size, size]`, or `[heads, size, size]` if heads stand beside the group
        in all tensors.

    Raises:
        ValueError: If there is no such group, if no tensor scales with it, or if one does with a
            power other than 1.

    References:
        Arora, Cohen and Hazan 2018, arXiv 1802.06509, theorem 1; Du, Hu and Lee 2018, arXiv
        1806.00900, theorem 2.2; Marcotte et al. 2025, arXiv 2506.06194 (attention).
    """
    terms = scaling_terms(space, group)
    powers = [term.power for term in terms]
    if {abs(power) for power in powers} != {1}:
        raise ValueError(
            f"group {group!r}: expected tensors with power 1 of its scales, got {powers}"
        )
    beside = [_beside(term) for term in terms]
    heads = [factor for factor in beside[0] if all(factor in other for other in beside)]
    kept = tuple(
        replace(term, kept=(*(places[factor] for factor in heads), *term.kept))
        for term, places in zip(terms, beside, strict=True)
    )
    size = space.groups[group].size
    return Law(f"{group}.matrix", "matrix", (*(count for count, _ in heads), size, size), kept)


def scale(space: WeightSpace, tensors: Sequence[str], each: int = 0) -> Law:
    """The squared norm of what stands before a norm layer.

    Statement. `Q = |W|^2 + |b|^2` of a layer before a normalization is constant under gradient
    flow: for each channel before BatchNorm, for the whole layer before LayerNorm or GroupNorm with
    one group.

    Proof. `N(a z) = N(z)` for `a > 0`, so `W, b -> a W, a b` does not change the function.
    The derivative at `a = 1` is `<g_W, W> + <g_b, b> = 0`.
    Under the flow `dQ/dt = -2 (<g_W, W> + <g_b, b>)`.

    Holds only as far as the epsilon of the norm may be neglected: the residual is of the order of
    epsilon over the variance. Fails in evaluation mode of BatchNorm, whose statistics do not move
    with `W`; with momentum, Adam or weight decay.

    Args:
        space: The weight space.
        tensors: What is scaled together: the weight, and the bias if there is one.
        each: How many of the written axes or factors have a scale of their own: 0 for one scale in
            all, 1 for one for each channel, or for each norm group of `(groups channels)`.

    Returns:
        The law; its shape has the sizes of those axes.

    Raises:
        ValueError: If there is no tensor or an unknown one, or if those axes differ between
            tensors.

    References:
        Kunin et al. 2021, arXiv 2012.04728, section 3; van Laarhoven 2017, arXiv 1706.05350.
    """
    pieces, written = _writing(space, tensors, each)
    terms = tuple(Term(block, block.written[:each], -1) for block in pieces)
    return Law(f"{tensors[0]}.scale", "scale", tuple(dim.size for dim in written), terms)


def shift(space: WeightSpace, tensor: str, each: int = 0) -> Law:
    """Sums over the neurons that a layer writes, where adding one number to all changes nothing.

    Statement. Column sums of the last weight, and the sum of the last bias, are constant under
    gradient flow of softmax cross-entropy. The same holds for what stands before a LayerNorm: it
    subtracts the mean.

    Proof. `softmax(z + c 1) = softmax(z)`, so `W -> W + 1 v^T` and `b -> b + c 1` do not change the
    function. The derivative along it is `sum_i g_ij = 0` for each column `j`. Under the flow
    `Q_j = sum_i W_ij` has `dQ_j/dt = -sum_i g_ij`.

    Linear, so it holds for gradient descent of any step size and with momentum. Fails for Adam (the
    residual stays 0), for losses other than softmax cross-entropy, and by weight decay, which
    shrinks `Q`.

    Args:
        space: The weight space.
        tensor: Name of the weight or bias.
        each: How many of the written axes or factors have a shift of their own.

    Returns:
        The law, of shape `[*each, columns]`; one column for a bias.

    Raises:
        ValueError: If there is no such tensor, or it writes a direct sum, or nothing is left to sum
            over.

    References:
        Kunin et al. 2021, arXiv 2012.04728, section 3 (translation symmetry).
    """
    pieces, written = _writing(space, [tensor], None)
    if each >= len(written):
        raise ValueError(
            f"tensor {tensor!r} writes {len(written)} axes, so each must be below that, got {each}"
        )
    terms = tuple(Term(block, (*block.written[:each], *block.read), 1) for block in pieces)
    columns = sum(math.prod(block.dims[i].size for i in block.read) for block in pieces)
    shape = (*(dim.size for dim in written[:each]), columns)
    return Law(f"{tensor}.shift", "shift", shape, terms)


def declared_laws(space: WeightSpace) -> tuple[Law, ...]:
    """The laws that a space declares: the balance of every group with positive or any scaling.

    They hold for every network of the space with every loss, as its scalings do. Laws that no space
    declares (a full matrix balance, scales before a norm, shifts) are named one by one, or found by
    `zoo.conservation.find_laws`.

    Args:
        space: The weight space, of an architecture or traced.

    Returns:
        The laws, in the order of the groups.

    >>> from zoo.architectures import build_mlp
    >>> [(law.name, law.shape) for law in declared_laws(build_mlp((4,), 3, hidden=(8, 6)).space)]
    [('h1.balance', (8,)), ('h2.balance', (6,))]
    """
    scaled = [name for name, group in space.groups.items() if group.may_stretch]
    return tuple(balance(space, name) for name in scaled if scaling_terms(space, name))


def _beside(term: Term) -> dict[tuple[int, str | None], int]:
    """Factors on the same axis as the group, such as heads, by size and group, and their places."""
    block, (place,) = term.block, term.kept
    beside: dict[tuple[int, str | None], int] = {}
    for i, dim in enumerate(block.dims):
        if i != place and block.axes[i] == block.axes[place]:
            beside.setdefault((dim.size, dim.group), i)
    return beside


def _writing(
    space: WeightSpace, tensors: Sequence[str], first: int | None
) -> tuple[list[Block], tuple[Dim, ...]]:
    """The blocks of tensors, and their first written axes, which must agree."""
    if not tensors:
        raise ValueError("expected at least one tensor, got none")
    if unknown := [name for name in tensors if name not in space.tensors]:
        raise ValueError(f"unknown tensors {unknown}; tensors are {list(space.tensors)}")
    pieces = [block for block in cut_blocks(space) if block.tensor in tensors]
    written = {tuple(block.dims[i] for i in block.written[:first]) for block in pieces}
    if len(written) != 1 or len(next(iter(written))) < (first or 0):
        patterns = {name: space.tensors[name] for name in tensors}
        raise ValueError(
            f"expected tensors that write the same axes, at least {first or 0}, "
            f"and no direct sum, got {patterns}"
        )
    return pieces, written.pop()
