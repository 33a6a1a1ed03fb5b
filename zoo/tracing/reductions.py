"""Rules of the operators that reduce or accumulate along axes."""

from typing import Any

from zoo.tracing.rules import Number, rule
from zoo.tracing.scales import ONE, unsigned
from zoo.tracing.values import (
    Context,
    Value,
    chosen_axes,
    reduce,
    rescale,
    unscaled,
)


@rule("sum", "mean", "nansum")
def _sum(
    ctx: Context, value: Value, dim: Any = None, keepdim: bool = False, **_kwargs: Any
) -> Value:
    return reduce(ctx, value, dim, keepdim)


@rule("amax", "amin")
def _amax(ctx: Context, value: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return reduce(ctx, value, dim, keepdim, ctx.equations.vanish_sign)


@rule("var", "var.correction")
def _var(
    ctx: Context, value: Value, dim: Any = None, *_args: Any, keepdim: bool = False, **_kwargs: Any
) -> Value:
    return reduce(ctx, value, dim, keepdim, lambda scale: scale * 2)


@rule("linalg_vector_norm")
def _norm(
    ctx: Context,
    value: Value,
    _order: Number = 2,
    dim: Any = None,
    keepdim: bool = False,
    **_kwargs: Any,
) -> Value:
    return reduce(ctx, value, dim, keepdim, unsigned)


@rule(
    "any", "all", "any.dim", "all.dim", "any.dims", "all.dims", "logsumexp", "prod", "prod.dim_int"
)
def _reduce_unscaled(
    ctx: Context, value: Value, dim: Any = None, keepdim: bool = False, **_kwargs: Any
) -> Value:
    return reduce(ctx, unscaled(ctx, value), dim, keepdim)


@rule("max.dim", "min.dim")
def _max_dim(ctx: Context, value: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    ctx.fix(value.dims[dim])  # the indices name positions
    best = _amax(ctx, value, dim, keepdim)
    return best, rescale(best, lambda _: ONE)


@rule("argmax", "argmin")
def _argmax(ctx: Context, value: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    ctx.fix(*(value.dims[axis] for axis in chosen_axes(value, dim)))
    return _reduce_unscaled(ctx, value, dim, keepdim)


@rule("cumsum", "cumprod")
def _cumulate(ctx: Context, value: Value, axis: int, **_kwargs: Any) -> Value:
    ctx.fix(value.dims[axis])
    return unscaled(ctx, value)
