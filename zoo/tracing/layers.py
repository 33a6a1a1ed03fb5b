"""Rules of the operators that layers are made of: products, norms, pooling, lookup, joining."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from zoo.tracing.dims import Cat, Dim, fixed, leaves, resolve, size, wild
from zoo.tracing.operators import RULES, Number, contraction, rule
from zoo.tracing.scales import FREE, ONE, Scale
from zoo.tracing.values import (
    Context,
    Value,
    add,
    contract,
    multiply,
    positive,
    reduce,
    rescale,
    reshape,
    unscaled,
)

rule("mm", "bmm", "matmul")(contraction)


@rule("addmm", "baddbmm")
def _addmm(ctx: Context, bias: Value, one: Value, other: Value, **_kwargs: Any) -> Value:
    return add(ctx, contraction(ctx, one, other), bias)


@rule("mv", "dot")
def _times_vector(ctx: Context, one: Value, vector: Value) -> Value:
    contract(ctx, one.dims[-1], vector.dims[-1])
    return Value(one.dims[:-1])


@rule("linear")
def _linear(ctx: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    product = contraction(ctx, x, Value(weight.dims[::-1]))
    return product if bias is None else add(ctx, product, bias)


@rule("scaled_dot_product_attention")
def _attention(
    ctx: Context,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    _dropout: Number = 0.0,
    is_causal: bool = False,
    *,
    enable_gqa: bool = False,
    **_kwargs: Any,
) -> Value:
    if is_causal:
        for dim in (query.dims[-2], key.dims[-2]):
            ctx.algebra.fix(dim)
    if enable_gqa and size(key.dims[-3]) > 1:
        key, value = _shared_heads(ctx, query, key, value)
    swapped = replace(key, dims=(*key.dims[:-2], key.dims[-1], key.dims[-2]))
    scores = unscaled(ctx, contraction(ctx, query, swapped))
    if attn_mask is not None:
        scores = add(ctx, scores, unscaled(ctx, attn_mask))
    return contraction(ctx, scores, value)


def _shared_heads(ctx: Context, query: Value, key: Value, value: Value) -> tuple[Value, Value]:
    """Each head of the keys serves several neighboring heads of the queries."""
    heads, served_heads = query.dims[-3], size(query.dims[-3]) // size(key.dims[-3])
    served = reshape(ctx, [heads], [size(key.dims[-3]), served_heads])[1]
    return key.put(-3, (*key.dims[-3], *served)), value.put(-3, (*value.dims[-3], *served))


# convolutions and pooling


@rule("convolution")
def _convolution(
    ctx: Context,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    groups: int,
) -> Value:
    rank = len(stride)
    for dim in (*weight.dims[2:], *x.dims[-rank:]):
        for leaf in leaves(ctx.algebra.fix(dim)):
            leaf.atom.plain = True
    lead, channels = x.dims[: -rank - 1], x.dims[-rank - 1]
    if groups == 1:
        written, read = weight.dims[1::-1] if transposed else weight.dims[:2]
        contract(ctx, channels, read)
    else:
        written = _grouped(ctx, channels, weight, transposed, groups)
    total = Value((*lead, written, *map(fixed, ctx.shape[-rank:])))
    return total if bias is None else add(ctx, total, Value((bias.dims[0], *((),) * rank)))


def _grouped(ctx: Context, channels: Dim, weight: Value, transposed: bool, groups: int) -> Dim:
    """The channels that a grouped convolution writes; its groups are those of the first axis."""
    first, second = weight.dims[:2]
    x_groups, x_inner = reshape(ctx, [channels], [groups, size(channels) // groups])
    w_groups, w_inner = reshape(ctx, [first], [groups, size(first) // groups])
    same_groups = ctx.algebra.same(x_groups, w_groups, Scale.__add__)
    read, written = (w_inner, second) if transposed else (second, w_inner)
    contract(ctx, x_inner, read)
    return reshape(ctx, [same_groups, written], [groups * size(written)])[0]


def _average_pool(rank: int, ctx: Context, x: Value, *_args: Any, **_kwargs: Any) -> Value:
    for dim in x.dims[-rank:]:
        ctx.algebra.fix(dim)
    return Value((*x.dims[:-rank], *map(fixed, ctx.shape[-rank:])), x.zero)


def _max_pool(
    rank: int, ctx: Context, x: Value, *_args: Any, **_kwargs: Any
) -> tuple[Value, Value]:
    pooled = _average_pool(rank, ctx, positive(ctx, x))
    return pooled, rescale(pooled, lambda _: ONE)


AVERAGES = (
    *("avg_pool{}d", "_adaptive_avg_pool{}d", "adaptive_avg_pool{}d"),
    *("reflection_pad{}d", "replication_pad{}d", "upsample__nearest_exact{}d"),
    *("upsample_nearest{}d", "upsample_bilinear{}d", "upsample_linear{}d"),
    *("upsample_trilinear{}d", "upsample_bicubic{}d"),
)
MAXIMA = ("max_pool{}d_with_indices", "adaptive_max_pool{}d")
for _rank in (1, 2, 3):
    RULES |= {name.format(_rank): partial(_average_pool, _rank) for name in AVERAGES}
    RULES |= {name.format(_rank): partial(_max_pool, _rank) for name in MAXIMA}


# norms


def _normalized(ctx: Context, x: Value) -> Value:
    return replace(unscaled(ctx, x), zero=False)  # eps binds the scale


def _affine(ctx: Context, x: Value, weight: Value | None, bias: Value | None) -> Value:
    x = x if weight is None else multiply(ctx, x, weight)
    return x if bias is None else add(ctx, x, bias)


def _by_channel(ctx: Context, x: Value, weight: Value | None, bias: Value | None) -> Value:
    rank = len(x.dims)
    return _affine(ctx, x, *(v and _on_channels(v, rank) for v in (weight, bias)))


def _on_channels(value: Value, rank: int) -> Value:
    return Value((value.dims[0], *((),) * (rank - 2)), value.zero)


@rule("native_layer_norm", "layer_norm")
def _layer_norm(
    ctx: Context, x: Value, _shape: Any, weight: Value | None, bias: Value | None, *_eps: Any
) -> Any:
    return _affine(ctx, _normalized(ctx, x), weight, bias), None, None


@rule("_fused_rms_norm", "rms_norm")
def _rms_norm(ctx: Context, x: Value, shape: Any, weight: Value | None = None, *_eps: Any) -> Any:
    return _layer_norm(ctx, x, shape, weight, None)[:2]


@rule("native_group_norm", "group_norm")
def _group_norm(
    ctx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    _n: int,
    channels: int,
    _positions: int,
    groups: int,
    *_: Any,
) -> Any:
    normalized = _normalized(ctx, x)
    reshape(ctx, [normalized.dims[1]], [groups, channels // groups])
    return _by_channel(ctx, normalized, weight, bias), None, None


@rule("_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(
    ctx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    _momentum: Number,
    eps: Number,
) -> Any:
    centered = add(ctx, x, _on_channels(mean, len(x.dims)))
    add(ctx, rescale(Value((x.dims[1],)), lambda scale: scale * 2), var)  # it is the variance of x
    spread = var if eps == 0 else unscaled(ctx, var)
    inverse = rescale(positive(ctx, spread), lambda scale: scale * Fraction(-1, 2))
    normalized = multiply(ctx, centered, _on_channels(inverse, len(x.dims)))
    return _by_channel(ctx, normalized, weight, bias), None, None


@rule("_native_batch_norm_legit.no_stats")
def _instance_norm(
    ctx: Context, x: Value, weight: Value | None, bias: Value | None, *_args: Any
) -> Any:
    return _by_channel(ctx, _normalized(ctx, x), weight, bias), None, None


@rule("_weight_norm_interface")
def _weight_norm(ctx: Context, direction: Value, length: Value, axis: int = 0) -> Any:
    others = [i for i in range(len(direction.dims)) if i != axis]
    norm = reduce(
        ctx, direction, others, keepdim=True, change=lambda scale: replace(scale, sign=frozenset())
    )
    inverse = rescale(norm, lambda scale: scale * -1)
    return multiply(ctx, direction, inverse, length), norm


# lookup


@rule("embedding")
def _embedding(ctx: Context, weight: Value, index: Value, *_args: Any, **_kwargs: Any) -> Value:
    for leaf in leaves(weight.dims[0]):
        if leaf.source is not None:
            ctx.reads.setdefault(leaf.source[0], (ctx.node, set()))[1].add(leaf.source[1])
    ctx.algebra.fix(weight.dims[0])
    return Value((*unscaled(ctx, index).dims, weight.dims[1]), weight.zero)


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


@rule("_trilinear")
def _trilinear(ctx: Context, *args: Any) -> Value:
    (*values, grown_one, grown_two, grown_three, summed) = args[:7]
    grown = []
    for value, axes in zip(values, (grown_one, grown_two, grown_three), strict=True):
        dims = list(value.dims)
        for axis in sorted(axes):
            dims.insert(axis, ())
        grown.append(Value(tuple(dims), value.zero))
    return reduce(ctx, multiply(ctx, *grown), summed, keepdim=False)


@rule("index_select")
def _index_select(ctx: Context, value: Value, axis: int, index: Value) -> Value:
    ctx.algebra.fix(value.dims[axis])
    return value.put(axis, *unscaled(ctx, index).dims)


@rule("gather")
def _gather(ctx: Context, value: Value, axis: int, index: Value, **_kwargs: Any) -> Value:
    axis %= len(value.dims)
    ctx.algebra.fix(value.dims[axis])
    dims = []
    for i, (own, chosen) in enumerate(zip(value.dims, unscaled(ctx, index).dims, strict=True)):
        if i != axis and size(own) == size(chosen):
            dims.append(ctx.algebra.same(own, chosen, ctx.algebra.equations.equal))
        else:
            ctx.algebra.fix(own)
            dims.append(chosen)
    return Value(tuple(dims))


@rule("index.Tensor", "index")
def _index(ctx: Context, value: Value, indices: Sequence[Value | None]) -> Value:
    chosen = [unscaled(ctx, index) for index in indices if index is not None]
    places = [i for i, index in enumerate(indices) if index is not None]
    for place in places:
        ctx.algebra.fix(value.dims[place])
    looked_up = add(ctx, *chosen).dims
    kept = [dim for i, dim in enumerate(value.dims) if i not in places]
    adjacent = places == list(range(places[0], places[-1] + 1))
    before = places[0] if adjacent else 0
    return Value((*kept[:before], *looked_up, *kept[before:]))


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
    return Value(tuple(known.get(pair, ()) for pair in wanted), value.zero)


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
    padded = Value(tuple(dims), value.zero)
    return padded if number == 0 else replace(unscaled(ctx, padded), zero=False)


def _padded(ctx: Context, dim: Dim, before: int, after: int, number: Number) -> Dim:
    if min(before, after) < 0 or number != 0:
        ctx.algebra.fix(dim)
        return fixed(size(dim) + before + after, plain=False)
    beside = [(wild(before, FREE),) if before else (), (wild(after, FREE),) if after else ()]
    return resolve((Cat((*beside[0], dim, *beside[1])),))


@rule("flip", "roll")
def _move(ctx: Context, value: Value, *args: Any) -> Value:
    for axis in args[-1] if args[-1] else range(len(value.dims)):
        ctx.algebra.fix(value.dims[axis])
    return value


@rule("cumsum", "cumprod")
def _cumulate(ctx: Context, value: Value, axis: int, **_kwargs: Any) -> Value:
    ctx.algebra.fix(value.dims[axis])
    return unscaled(ctx, value)


@rule("tril", "triu")
def _triangle(ctx: Context, value: Value, *_args: Any) -> Value:
    for dim in value.dims[-2:]:
        ctx.algebra.fix(dim)
    return value
