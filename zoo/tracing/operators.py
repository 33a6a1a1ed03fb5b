"""What every operator does to the neurons along the axes of its inputs: one rule each.

A rule is `rule(ctx, *args, **kwargs)` with the arguments of the operator, tensors replaced by
`Value`. It is sound if the operator commutes with every permutation and scale that the rule leaves
possible.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from zoo.tracing.dims import Dim, fixed, leaves, resolve, size, wild
from zoo.tracing.scales import ONE, Scale
from zoo.tracing.values import (
    Context,
    Value,
    add,
    contract,
    multiply,
    pick,
    positive,
    reduce,
    rescale,
    reshape,
    unscaled,
)

Rule = Callable[..., Any]
Number = int | float
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators, by their names without `aten.`, with or without overload."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


# elementwise, one input: how a scale passes

SAME = (
    "neg",
    "clone",
    "alias",
    "detach",
    "_to_copy",
    "lift_fresh_copy",
    "contiguous",
    "dropout",
    "expand_copy",
    "view_copy",
)
POSITIVE = ("relu", "leaky_relu", "rrelu", "prelu_kernel")
ODD = ("tanh", "sin", "erf", "atan", "asin", "sinh", "asinh", "tan", "atanh")
NO_SCALE = (
    *(
        "gelu",
        "sigmoid",
        "exp",
        "log",
        "log1p",
        "expm1",
        "elu",
        "cos",
        "cosh",
        "log2",
        "log10",
        "erfc",
        "exp2",
        "silu",
    ),
    *(
        "mish",
        "softplus",
        "hardswish",
        "hardsigmoid",
        "selu",
        "celu",
        "_softmax",
        "_log_softmax",
        "logical_not",
        "isnan",
    ),
    *(
        "isinf",
        "floor",
        "ceil",
        "round",
        "trunc",
        "bitwise_not",
        "acos",
        "log_sigmoid_forward",
        "fmod",
        "remainder",
    ),
)
ACTIVATIONS = {
    "relu",
    "leaky_relu",
    "tanh",
    "sin",
    "gelu",
    "sigmoid",
    "elu",
    "erf",
    "silu",
    "softplus",
    "hardtanh",
    "cos",
}
KEEPS_ZERO = {
    *SAME,
    *POSITIVE,
    *ODD,
    "gelu",
    "expm1",
    "log1p",
    "elu",
    "silu",
    "abs",
    "sign",
    "sqrt",
    "selu",
    "celu",
}


def elementwise(ctx: Context, name: str, value: Value) -> Value:
    """Apply a function of one variable to every entry."""
    equations = ctx.algebra.equations
    changes: dict[str, Callable[[Scale], Scale]] = {
        **dict.fromkeys(SAME, lambda scale: scale),
        **dict.fromkeys(POSITIVE, equations.vanish_sign),
        **dict.fromkeys(ODD, equations.vanish_magnitude),
        "abs": lambda scale: replace(scale, sign=frozenset()),
        "sign": lambda scale: Scale({}, scale.sign),
    }
    if name in ACTIVATIONS:
        for leaf in (leaf for dim in value.dims for leaf in leaves(dim)):
            ctx.activations.setdefault(leaf.atom, set()).add(name)
    return rescale(value, changes.get(name, equations.vanish), value.zero and name in KEEPS_ZERO)


def _register_elementwise() -> None:
    for name in (*SAME, *POSITIVE, *ODD, *NO_SCALE, "abs", "sign"):
        RULES[name] = lambda ctx, value, *_args, _name=name, **_kwargs: elementwise(
            ctx, _name, value
        )


_register_elementwise()


@rule("hardtanh", "clamp")
def _clamp(ctx: Context, value: Value, low: Any = None, high: Any = None) -> Value:
    if isinstance(low, Value) or isinstance(high, Value):
        bounds = [bound for bound in (low, high) if isinstance(bound, Value)]
        return add(ctx, *(unscaled(ctx, v) for v in (value, *bounds)))
    if (low in (0, None) or low == -math.inf) and (high in (0, None) or high == math.inf):
        return elementwise(ctx, "relu", value)
    odd = low is not None and high is not None and low == -high
    return elementwise(ctx, "erf" if odd else "sigmoid", value)


@rule("pow.Tensor_Scalar")
def _power(ctx: Context, value: Value, exponent: Number) -> Value:
    if exponent != int(exponent):
        value = positive(ctx, value)
    return rescale(value, lambda scale: scale * Fraction(exponent).limit_denominator(64))


RULES["sqrt"] = lambda ctx, value: _power(ctx, value, 0.5)
RULES["rsqrt"] = lambda ctx, value: _power(ctx, value, -0.5)
RULES["reciprocal"] = lambda ctx, value: _power(ctx, value, -1)


# elementwise, several inputs


def _values(*operands: Any) -> list[Value]:
    return [operand for operand in operands if isinstance(operand, Value)]


def _plus_number(ctx: Context, value: Value, number: Number) -> Value:
    return value if number == 0 else replace(unscaled(ctx, value), zero=False)


@rule("add", "sub", "rsub")
def _add(ctx: Context, one: Any, other: Any, **_alpha: Any) -> Value:
    operands = _values(one, other)
    if len(operands) == 2:
        return add(ctx, *operands)
    return _plus_number(ctx, operands[0], other if operands[0] is one else one)


@rule("mul")
def _mul(ctx: Context, one: Any, other: Any) -> Value:
    operands = _values(one, other)
    return multiply(ctx, *operands) if len(operands) == 2 else operands[0]


@rule("div")
def _div(ctx: Context, one: Any, other: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        return add(ctx, *(unscaled(ctx, v) for v in _values(one, other)))
    if not isinstance(other, Value):
        return one
    inverse = rescale(other, lambda scale: scale * -1)
    return multiply(ctx, one, inverse) if isinstance(one, Value) else inverse


@rule("maximum", "minimum")
def _maximum(ctx: Context, one: Value, other: Value) -> Value:
    return positive(ctx, add(ctx, one, other))


@rule("where.self", "where")
def _where(ctx: Context, condition: Value, one: Any, other: Any) -> Value:
    operands = _values(one, other)
    branches = operands[0] if len(operands) == 1 else add(ctx, *operands)
    chosen = multiply(ctx, unscaled(ctx, condition), Value(branches.dims))
    return replace(chosen, zero=all(v.zero for v in operands))


@rule("eq", "ne", "lt", "le", "gt", "ge")
def _compare(ctx: Context, one: Value, other: Any) -> Value:
    if isinstance(other, Value):
        compared = positive(ctx, add(ctx, one, other))
    elif other == 0 or abs(other) == math.inf:
        compared = positive(ctx, one)
    else:
        compared = unscaled(ctx, one)
    return rescale(compared, lambda _: ONE)


@rule(
    *(
        "pow.Tensor_Tensor",
        "pow.Scalar",
        "atan2",
        "logical_and",
        "logical_or",
        "logical_xor",
        "bitwise_and",
        "bitwise_or",
    ),
    *("fmod.Tensor", "remainder.Tensor", "floor_divide", "bitwise_xor", "copysign", "hypot"),
)
def _any_function(ctx: Context, one: Any, other: Any) -> Value:
    return add(ctx, *(unscaled(ctx, v) for v in _values(one, other)))


@rule("full_like", "zeros_like", "ones_like", "empty_like", "new_full", "new_zeros", "new_ones")
def _constant_like(_ctx: Context, value: Value, number: Any = None, **_kwargs: Any) -> Value:
    sizes = number if isinstance(number, Sequence) else [size(dim) for dim in value.dims]
    zero = number == 0
    return Value(tuple(wild(n, Scale(free=zero)) for n in sizes), zero)


# reductions


def _axes(value: Value, dim: Any) -> list[int]:
    if dim is None or dim == []:
        return list(range(len(value.dims)))
    return [dim] if isinstance(dim, int) else list(dim)


@rule("sum", "mean", "nansum")
def _sum(
    ctx: Context, value: Value, dim: Any = None, keepdim: bool = False, **_kwargs: Any
) -> Value:
    return reduce(ctx, value, _axes(value, dim), keepdim)


@rule("amax", "amin")
def _amax(ctx: Context, value: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return reduce(ctx, value, _axes(value, dim), keepdim, ctx.algebra.equations.vanish_sign)


@rule("var", "var.correction")
def _var(
    ctx: Context, value: Value, dim: Any = None, *_args: Any, keepdim: bool = False, **_kwargs: Any
) -> Value:
    return reduce(ctx, value, _axes(value, dim), keepdim, lambda scale: scale * 2)


@rule("linalg_vector_norm")
def _norm(
    ctx: Context,
    value: Value,
    _order: Number = 2,
    dim: Any = None,
    keepdim: bool = False,
    **_kwargs: Any,
) -> Value:
    return reduce(
        ctx, value, _axes(value, dim), keepdim, lambda scale: replace(scale, sign=frozenset())
    )


@rule(
    "any", "all", "any.dim", "all.dim", "any.dims", "all.dims", "logsumexp", "prod", "prod.dim_int"
)
def _reduce_unscaled(
    ctx: Context, value: Value, dim: Any = None, keepdim: bool = False, **_kwargs: Any
) -> Value:
    return reduce(ctx, unscaled(ctx, value), _axes(value, dim), keepdim)


@rule("max.dim", "min.dim")
def _max_dim(ctx: Context, value: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    ctx.algebra.fix(value.dims[dim])  # the indices name positions
    best = reduce(ctx, value, [dim], keepdim, ctx.algebra.equations.vanish_sign)
    return best, rescale(best, lambda _: ONE)


@rule("argmax", "argmin")
def _argmax(ctx: Context, value: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    for axis in _axes(value, dim):
        ctx.algebra.fix(value.dims[axis])
    return reduce(ctx, unscaled(ctx, value), _axes(value, dim), keepdim)


# shapes


@rule("view", "reshape", "_unsafe_view", "view.default")
def _view(ctx: Context, value: Value, sizes: Sequence[int]) -> Value:
    total = math.prod(size(dim) for dim in value.dims)
    known = math.prod(n for n in sizes if n != -1)
    return replace(
        value, dims=reshape(ctx, value.dims, [total // known if n == -1 else n for n in sizes])
    )


@rule("permute")
def _permute(_ctx: Context, value: Value, order: Sequence[int]) -> Value:
    return replace(value, dims=tuple(value.dims[axis] for axis in order))


@rule("transpose.int", "transpose")
def _transpose(_ctx: Context, value: Value, one: int, other: int) -> Value:
    dims = list(value.dims)
    dims[one], dims[other] = dims[other], dims[one]
    return replace(value, dims=tuple(dims))


@rule("t")
def _t(_ctx: Context, value: Value) -> Value:
    return replace(value, dims=value.dims[::-1])


@rule("unsqueeze")
def _unsqueeze(_ctx: Context, value: Value, axis: int) -> Value:
    return value.grown(axis)


@rule("squeeze", "squeeze.dim", "squeeze.dims")
def _squeeze(_ctx: Context, value: Value, axes: Any = None) -> Value:
    chosen = {axis % len(value.dims) for axis in _axes(value, axes)} if value.dims else set()
    return replace(
        value,
        dims=tuple(d for i, d in enumerate(value.dims) if i not in chosen or size(resolve(d)) > 1),
    )


@rule("expand")
def _expand(_ctx: Context, value: Value, sizes: Sequence[int], **_kwargs: Any) -> Value:
    dims = ((),) * (len(sizes) - len(value.dims)) + value.dims
    grown = [
        wild(n, Scale(free=value.zero)) if n > 1 and not resolve(dim) else dim
        for n, dim in zip(sizes, dims, strict=True)
    ]
    return replace(value, dims=tuple(grown))


@rule("repeat")
def _repeat(_ctx: Context, value: Value, times: Sequence[int]) -> Value:
    dims = ((),) * (len(times) - len(value.dims)) + value.dims
    return replace(
        value, dims=tuple((*fixed(n), *resolve(dim)) for n, dim in zip(times, dims, strict=True))
    )


@rule("select.int", "select")
def _select(ctx: Context, value: Value, axis: int, index: int) -> Value:
    return pick(ctx, value, axis, index % size(value.dims[axis]), 1).put(axis)


@rule("slice.Tensor", "slice")
def _slice(
    ctx: Context,
    value: Value,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    chosen = range(*slice(start, end, step).indices(size(value.dims[axis])))
    if step != 1 and len(chosen) > 1:
        ctx.algebra.fix(value.dims[axis])
        return value.put(axis, fixed(len(chosen), plain=False))
    return pick(ctx, value, axis, chosen[0], len(chosen))


@rule("split_with_sizes", "split_with_sizes_copy")
def _split_with_sizes(
    ctx: Context, value: Value, sizes: Sequence[int], axis: int = 0
) -> tuple[Value, ...]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(
        pick(ctx, value, axis, start, length) for start, length in zip(starts, sizes, strict=True)
    )


@rule("split.Tensor", "split")
def _split(ctx: Context, value: Value, length: int, axis: int = 0) -> tuple[Value, ...]:
    total = size(value.dims[axis])
    sizes = [min(length, total - start) for start in range(0, total, length)]
    return _split_with_sizes(ctx, value, sizes, axis)


@rule("unbind.int", "unbind")
def _unbind(ctx: Context, value: Value, axis: int = 0) -> tuple[Value, ...]:
    return tuple(_select(ctx, value, axis, i) for i in range(size(value.dims[axis])))


def contraction(ctx: Context, one: Value, other: Value) -> Value:
    """`[..., k]` times `[..., k, n]` with leading axes that are batched."""
    contract(ctx, one.dims[-1], other.dims[-2])
    batch = multiply(ctx, Value(one.dims[:-2]), Value(other.dims[:-2]))
    dims: tuple[Dim, ...] = (*batch.dims, one.dims[-2], other.dims[-1])
    return Value(dims, one.zero or other.zero)
