"""Rules of the operators that look positions up by indices."""

from collections.abc import Sequence
from typing import Any

from zoo.tracing.dims import fixed, leaves, size
from zoo.tracing.rules import rule
from zoo.tracing.values import (
    Context,
    Value,
    add,
    positive,
    unscaled,
)


@rule("embedding")
def _embedding(ctx: Context, weight: Value, index: Value, *_args: Any, **_kwargs: Any) -> Value:
    for leaf in leaves(weight.dims[0]):
        if leaf.source is not None:
            ctx.reads.setdefault(leaf.source[0], (ctx.node, set()))[1].add(leaf.source[1])
    ctx.fix(weight.dims[0])
    return weight.of((*unscaled(ctx, index).dims, weight.dims[1]))


@rule("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    ctx: Context,
    weight: Value,
    index: Value,
    _offsets: Any,
    _scale: Any = False,
    mode: int = 0,
    *_: Any,
) -> Any:
    looked_up = _embedding(ctx, weight, index)
    kept = positive(ctx, Value((looked_up.dims[-1],))) if mode == 2 else looked_up
    return Value((fixed(ctx.shape[0], plain=False), kept.dims[-1])), None, None, None


@rule("index_select")
def _index_select(ctx: Context, value: Value, axis: int, index: Value) -> Value:
    ctx.fix(value.dims[axis])
    return value.put(axis, *unscaled(ctx, index).dims)


@rule("gather")
def _gather(ctx: Context, value: Value, axis: int, index: Value, **_kwargs: Any) -> Value:
    axis %= len(value.dims)
    ctx.fix(value.dims[axis])
    dims = []
    for i, (dim, chosen) in enumerate(zip(value.dims, unscaled(ctx, index).dims, strict=True)):
        if i != axis and size(dim) == size(chosen):
            dims.append(ctx.algebra.same(dim, chosen, ctx.equations.equal))
        else:
            ctx.fix(dim)
            dims.append(chosen)
    return Value(tuple(dims))


@rule("index.Tensor", "index")
def _index(ctx: Context, value: Value, indices: Sequence[Value | None]) -> Value:
    chosen = [unscaled(ctx, index) for index in indices if index is not None]
    places = [i for i, index in enumerate(indices) if index is not None]
    ctx.fix(*(value.dims[place] for place in places))
    looked_up = add(ctx, *chosen).dims
    kept = [dim for i, dim in enumerate(value.dims) if i not in places]
    adjacent = places == list(range(places[0], places[-1] + 1))
    before = places[0] if adjacent else 0
    return Value((*kept[:before], *looked_up, *kept[before:]))
