"""Rules of functions of single entries: how a scale passes, and what needs equal scales."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from zoo.tracing.dims import size, wild
from zoo.tracing.rules import RULES, Number, rule
from zoo.tracing.scales import ONE, Scale, unsigned
from zoo.tracing.values import (
    Context,
    Value,
    add,
    multiply,
    positive,
    rescale,
    shifted,
    unscaled,
)

# one input: how a scale passes

SAME = (
    *("neg", "clone", "alias", "detach", "_to_copy", "lift_fresh_copy", "contiguous"),
    *("dropout", "expand_copy", "view_copy"),
)
POSITIVE = ("relu", "leaky_relu", "rrelu", "prelu_kernel")
ODD = ("tanh", "sin", "erf", "atan", "asin", "sinh", "asinh", "tan", "atanh")
NO_SCALE = (
    *("gelu", "sigmoid", "exp", "log", "log1p", "expm1", "elu", "cos", "cosh", "log2"),
    *("log10", "erfc", "exp2", "silu", "mish", "softplus", "hardswish", "hardsigmoid"),
    *("selu", "celu", "_softmax", "_log_softmax", "logical_not", "isnan", "isinf", "floor"),
    *("ceil", "round", "trunc", "bitwise_not", "acos", "log_sigmoid_forward", "fmod"),
    "remainder",
)
ACTIVATIONS = {
    *("relu", "leaky_relu", "tanh", "sin", "gelu", "sigmoid", "elu", "erf", "silu"),
    *("softplus", "hardtanh", "cos"),
}
KEEPS_ZERO = {
    *(*SAME, *POSITIVE, *ODD, "abs", "sign", "sqrt"),
    *("gelu", "expm1", "log1p", "elu", "silu", "selu", "celu"),
}


def _apply(name: str, ctx: Context, value: Value, *_args: Any, **_kwargs: Any) -> Value:
    """Apply a function of one variable to every entry."""
    equations = ctx.equations
    changes: dict[str, Callable[[Scale], Scale]] = {
        **dict.fromkeys(SAME, lambda scale: scale),
        **dict.fromkeys(POSITIVE, equations.vanish_sign),
        **dict.fromkeys(ODD, equations.vanish_magnitude),
        "abs": unsigned,
        "sign": lambda scale: Scale({}, scale.sign),
    }
    if name in ACTIVATIONS:
        for leaf in value.leaves():
            ctx.activations.setdefault(leaf.atom, set()).add(name)
    return rescale(value, changes.get(name, equations.vanish), value.zero and name in KEEPS_ZERO)


RULES |= {
    name: partial(_apply, name) for name in (*SAME, *POSITIVE, *ODD, *NO_SCALE, "abs", "sign")
}


@rule("hardtanh", "clamp")
def _clamp(ctx: Context, value: Value, low: Any = None, high: Any = None) -> Value:
    if _values(low, high):
        return _any_function(ctx, value, low, high)
    if low in (0, None, -math.inf) and high in (0, None, math.inf):
        return _apply("relu", ctx, value)
    odd = None not in (low, high) and low == -high
    return _apply("erf" if odd else "sigmoid", ctx, value)


@rule("pow.Tensor_Scalar")
def _power(ctx: Context, value: Value, exponent: Number) -> Value:
    if exponent != int(exponent):
        value = positive(ctx, value)
    return rescale(value, lambda scale: scale * Fraction(exponent).limit_denominator(64))


RULES["sqrt"] = lambda ctx, value: _power(ctx, value, 0.5)
RULES["rsqrt"] = lambda ctx, value: _power(ctx, value, -0.5)
RULES["reciprocal"] = lambda ctx, value: _power(ctx, value, -1)


# several inputs


def _values(*operands: Any) -> list[Value]:
    return [operand for operand in operands if isinstance(operand, Value)]


@rule("add", "sub", "rsub")
def _add(ctx: Context, one: Any, other: Any, **_alpha: Any) -> Value:
    operands = _values(one, other)
    if len(operands) == 2:
        return add(ctx, *operands)
    return shifted(ctx, operands[0], other if operands[0] is one else one)


@rule("mul")
def _mul(ctx: Context, one: Any, other: Any) -> Value:
    return multiply(ctx, *_values(one, other))


@rule("div")
def _div(ctx: Context, one: Any, other: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        return _any_function(ctx, one, other)
    if not isinstance(other, Value):
        return one
    return _mul(ctx, one, rescale(other, lambda scale: scale * -1))


@rule("maximum", "minimum")
def _maximum(ctx: Context, one: Value, other: Value) -> Value:
    return positive(ctx, add(ctx, one, other))


@rule("where.self", "where")
def _where(ctx: Context, condition: Value, one: Any, other: Any) -> Value:
    operands = _values(one, other)
    branches = add(ctx, *operands)
    chosen = multiply(ctx, unscaled(ctx, condition), Value(branches.dims))
    return replace(chosen, zero=all(v.zero for v in operands))


@rule("eq", "ne", "lt", "le", "gt", "ge")
def _compare(ctx: Context, one: Value, other: Any) -> Value:
    if isinstance(other, Value):
        compared = _maximum(ctx, one, other)
    elif other == 0 or abs(other) == math.inf:
        compared = positive(ctx, one)
    else:
        compared = unscaled(ctx, one)
    return rescale(compared, lambda _: ONE)


@rule(
    *("pow.Tensor_Tensor", "pow.Scalar", "atan2", "logical_and", "logical_or"),
    *("logical_xor", "bitwise_and", "bitwise_or", "fmod.Tensor", "remainder.Tensor"),
    *("floor_divide", "bitwise_xor", "copysign", "hypot"),
)
def _any_function(ctx: Context, *operands: Any) -> Value:
    return add(ctx, *(unscaled(ctx, v) for v in _values(*operands)))


@rule("full_like", "zeros_like", "ones_like", "empty_like", "new_full", "new_zeros", "new_ones")
def _constant_like(_ctx: Context, value: Value, number: Any = None, **_kwargs: Any) -> Value:
    sizes = number if isinstance(number, Sequence) else [size(dim) for dim in value.dims]
    zero = number == 0
    return Value(tuple(wild(n, free=zero) for n in sizes), zero)
