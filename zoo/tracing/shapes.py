"""Rules of the operators that view, select, move and join positions of an axis."""

import math
from collections.abc import Sequence
from typing import Any

from zoo.tracing.dims import Cat, Dim, fixed, resolve, size, wild
from zoo.tracing.rules import Number, rule
from zoo.tracing.values import (
    Context,
    Value,
    add,
    chosen_axes,
    pick,
    reshape,
    shifted,
)


@rule("view", "reshape", "_unsafe_view", "view.default")
def _view(ctx: Context, value: Value, sizes: Sequence[int]) -> Value:
    total = math.prod(size(dim) for dim in value.dims)
    known = math.prod(n for n in sizes if n != -1)
    return value.of(reshape(ctx, value.dims, [total // known if n == -1 else n for n in sizes]))


@rule("permute")
def _permute(_ctx: Context, value: Value, order: Sequence[int]) -> Value:
    return value.of(value.dims[axis] for axis in order)


@rule("transpose.int", "transpose")
def _transpose(_ctx: Context, value: Value, one: int, other: int) -> Value:
    dims = list(value.dims)
    dims[one], dims[other] = dims[other], dims[one]
    return value.of(dims)


@rule("t")
def _t(_ctx: Context, value: Value) -> Value:
    return value.of(value.dims[::-1])


@rule("unsqueeze")
def _unsqueeze(_ctx: Context, value: Value, axis: int) -> Value:
    return value.grown(axis)


@rule("squeeze", "squeeze.dim", "squeeze.dims")
def _squeeze(_ctx: Context, value: Value, axes: Any = None) -> Value:
    chosen = chosen_axes(value, axes)
    return value.of(d for i, d in enumerate(value.dims) if i not in chosen or size(d) > 1)


@rule("expand")
def _expand(_ctx: Context, value: Value, sizes: Sequence[int], **_kwargs: Any) -> Value:
    return value.of(
        wild(n, free=value.zero) if n > 1 and not resolve(dim) else dim
        for n, dim in zip(sizes, value.padded(len(sizes)), strict=True)
    )


@rule("repeat")
def _repeat(_ctx: Context, value: Value, times: Sequence[int]) -> Value:
    dims = value.padded(len(times))
    return value.of((*fixed(n), *resolve(dim)) for n, dim in zip(times, dims, strict=True))


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
        ctx.fix(value.dims[axis])
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


@rule("as_strided")
def _as_strided(
    ctx: Context,
    value: Value,
    sizes: Sequence[int],
    strides: Sequence[int],
    offset: int | None = None,
) -> Any:
    known = {
        (size(dim), step): dim
        for dim, step in zip(value.dims, ctx.strides, strict=True)
        if size(dim) > 1
    }
    wanted = list(zip(sizes, strides, strict=True))
    if offset or sorted(pair for pair in wanted if pair[0] > 1) != sorted(known):
        return None
    return value.of(known.get(pair, ()) for pair in wanted)


@rule("flip", "roll")
def _move(ctx: Context, value: Value, *args: Any) -> Value:
    ctx.fix(*(value.dims[axis] for axis in args[-1] or range(len(value.dims))))
    return value


@rule("tril", "triu")
def _triangle(ctx: Context, value: Value, *_args: Any) -> Value:
    ctx.fix(*value.dims[-2:])
    return value


# joining


@rule("cat")
def _cat(ctx: Context, values: Sequence[Value], axis: int = 0) -> Value:
    values = [value for value in values if value.dims and all(size(dim) for dim in value.dims)]
    others = add(ctx, *(value.put(axis, ()) for value in values))
    joined = resolve((Cat(tuple(value.dims[axis] for value in values)),))
    return others.put(axis, joined)


@rule("stack")
def _stack(ctx: Context, values: Sequence[Value], axis: int = 0) -> Value:
    return _cat(ctx, [value.grown(axis) for value in values], axis)


@rule("constant_pad_nd")
def _pad(ctx: Context, value: Value, padding: Sequence[int], number: Number = 0) -> Value:
    dims = list(value.dims)
    for i in range(len(padding) // 2):
        before, after = padding[2 * i : 2 * i + 2]
        dims[-1 - i] = _padded(ctx, dims[-1 - i], before, after, number)
    return shifted(ctx, value.of(dims), number)


def _padded(ctx: Context, dim: Dim, before: int, after: int, number: Number) -> Dim:
    if min(before, after) < 0 or number != 0:
        ctx.fix(dim)
        return fixed(size(dim) + before + after, plain=False)
    beside = [(wild(n, free=True),) if n else () for n in (before, after)]
    return resolve((Cat((*beside[0], dim, *beside[1])),))
