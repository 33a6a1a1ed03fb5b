"""Rules of the operators that layers are made of: products, convolutions, norms, pooling, lookup, joining."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from zoo.tracing.dims import Cat, Dim, fixed, leaves, resolve, size, wild
from zoo.tracing.operators import RULES, Number, contraction, rule
from zoo.tracing.scales import FREE, Scale
from zoo.tracing.values import Context, Value, combine, contract, reduce, rescale, reshape, unscaled


@rule("mm", "bmm", "matmul")
def _matmul(ctx: Context, one: Value, other: Value) -> Value:
    return contraction(ctx, one, other)


@rule("addmm", "baddbmm")
def _addmm(ctx: Context, bias: Value, one: Value, other: Value, **_kwargs: Any) -> Value:
    return combine(ctx, [contraction(ctx, one, other), bias], multiply=False)


@rule("mv")
def _mv(ctx: Context, matrix: Value, vector: Value) -> Value:
    contract(ctx, matrix.dims[-1], vector.dims[-1])
    return Value(matrix.dims[:-1])


@rule("dot")
def _dot(ctx: Context, one: Value, other: Value) -> Value:
    contract(ctx, one.dims[0], other.dims[0])
    return Value(())


@rule("linear")
def _linear(ctx: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    product = contraction(ctx, x, Value(weight.dims[::-1]))
    return product if bias is None else combine(ctx, [product, bias], multiply=False)


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
    if (
        enable_gqa and size(key.dims[-3]) > 1
    ):  # each head of the keys serves several neighboring heads of the queries
        served = size(query.dims[-3]) // size(key.dims[-3])
        grouped = reshape(ctx, [query.dims[-3]], [size(key.dims[-3]), served])
        key, value = (
            replace(v, dims=(*v.dims[:-3], (*v.dims[-3], *grouped[1]), *v.dims[-2:]))
            for v in (key, value)
        )
    scores = unscaled(
        ctx,
        contraction(ctx, query, replace(key, dims=(*key.dims[:-2], key.dims[-1], key.dims[-2]))),
    )
    if attn_mask is not None:
        scores = combine(ctx, [scores, unscaled(ctx, attn_mask)], multiply=False)
    return contraction(ctx, scores, value)


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
    read_axis = 0 if transposed else 1
    written, read = weight.dims[1 - read_axis], weight.dims[read_axis]
    lead, channels = x.dims[: -rank - 1], x.dims[-rank - 1]
    if groups == 1:
        contract(ctx, channels, read)
        out: Dim = written
    else:
        per_group = size(channels) // groups
        split_x = reshape(ctx, [channels], [groups, per_group])
        side, other = (read, written) if transposed else (written, read)
        split_w = reshape(ctx, [side], [groups, size(side) // groups])
        block = ctx.algebra.same(split_x[0], split_w[0], Scale.__add__)
        contract(ctx, split_x[1], split_w[1] if transposed else other)
        out = reshape(
            ctx,
            [block, other if transposed else split_w[1]],
            [groups * size(other if transposed else split_w[1])],
        )[0]
    total = Value((*lead, out, *map(fixed, ctx.shape[-rank:])))
    if bias is None:
        return total
    return combine(ctx, [total, Value((bias.dims[0], *((),) * rank))], multiply=False)


def _pool(ctx: Context, x: Value, rank: int, linear: bool) -> Value:
    for dim in x.dims[-rank:]:
        ctx.algebra.fix(dim)
    x = x if linear else rescale(x, ctx.algebra.equations.vanish_sign)
    return Value((*x.dims[:-rank], *map(fixed, ctx.shape[-rank:])), x.zero)


def _register_pools() -> None:
    for rank in (1, 2, 3):
        for name in (
            f"avg_pool{rank}d",
            f"_adaptive_avg_pool{rank}d",
            f"adaptive_avg_pool{rank}d",
            f"reflection_pad{rank}d",
        ):
            RULES[name] = lambda ctx, x, *_args, _rank=rank, **_kwargs: _pool(
                ctx, x, _rank, linear=True
            )
        for mode in ("nearest", "bilinear", "linear", "trilinear", "bicubic", "_nearest_exact"):
            RULES[f"upsample_{mode}{rank}d"] = lambda ctx, x, *_args, _rank=rank, **_kwargs: _pool(
                ctx, x, _rank, linear=True
            )
        RULES[f"replication_pad{rank}d"] = RULES[f"reflection_pad{rank}d"]
        for name in (f"max_pool{rank}d_with_indices", f"adaptive_max_pool{rank}d"):
            RULES[name] = lambda ctx, x, *_args, _rank=rank, **_kwargs: _max_pool(ctx, x, _rank)


def _max_pool(ctx: Context, x: Value, rank: int) -> tuple[Value, Value]:
    pooled = _pool(ctx, x, rank, linear=False)
    return pooled, rescale(pooled, lambda _: Scale())


_register_pools()


# norms


def _affine(
    ctx: Context, x: Value, weight: Value | None, bias: Value | None, channels: bool = True
) -> Value:
    for value, multiply in ((weight, True), (bias, False)):
        if value is not None:
            x = combine(ctx, [x, _on_channels(value, len(x.dims)) if channels else value], multiply)
    return x


def _on_channels(value: Value, rank: int) -> Value:
    return Value((value.dims[0], *((),) * (rank - 2)), value.zero)


@rule("native_layer_norm", "layer_norm")
def _layer_norm(
    ctx: Context, x: Value, _shape: Any, weight: Value | None, bias: Value | None, *_eps: Any
) -> Any:
    normalized = replace(unscaled(ctx, x), zero=False)  # eps binds the scale
    return _affine(ctx, normalized, weight, bias, channels=False), None, None


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
    normalized = replace(unscaled(ctx, x), zero=False)
    reshape(ctx, [normalized.dims[1]], [groups, channels // groups])
    return _affine(ctx, normalized, weight, bias), None, None


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
    centered = combine(ctx, [x, _on_channels(mean, len(x.dims))], multiply=False)
    combine(
        ctx, [rescale(Value((x.dims[1],)), lambda scale: scale * 2), var], multiply=False
    )  # it is the variance of x
    spread = var if eps == 0 else unscaled(ctx, var)
    inverse = rescale(
        rescale(spread, ctx.algebra.equations.vanish_sign), lambda scale: scale * Fraction(-1, 2)
    )
    normalized = combine(ctx, [centered, _on_channels(inverse, len(x.dims))], multiply=True)
    return _affine(ctx, normalized, weight, bias), None, None


@rule("_native_batch_norm_legit.no_stats")
def _instance_norm(
    ctx: Context, x: Value, weight: Value | None, bias: Value | None, *_args: Any
) -> Any:
    normalized = replace(unscaled(ctx, x), zero=False)
    return _affine(ctx, normalized, weight, bias), None, None


@rule("_weight_norm_interface")
def _weight_norm(ctx: Context, direction: Value, length: Value, axis: int = 0) -> Any:
    others = [i for i in range(len(direction.dims)) if i != axis]
    norm = reduce(
        ctx, direction, others, keepdim=True, change=lambda scale: replace(scale, sign=frozenset())
    )
    inverse = rescale(norm, lambda scale: scale * -1)
    return combine(ctx, [direction, inverse, length], multiply=True), norm


# lookup


@rule("embedding")
def _embedding(ctx: Context, weight: Value, index: Value, *_args: Any, **_kwargs: Any) -> Value:
    for leaf in leaves(resolve(weight.dims[0])):
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
    kept = (
        rescale(Value((looked_up.dims[-1],)), ctx.algebra.equations.vanish_sign)
        if mode == 2
        else looked_up
    )
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
    return reduce(ctx, combine(ctx, grown, multiply=True), summed, keepdim=False)


@rule("index_select")
def _index_select(ctx: Context, value: Value, axis: int, index: Value) -> Value:
    axis %= len(value.dims)
    ctx.algebra.fix(value.dims[axis])
    return replace(
        value, dims=(*value.dims[:axis], *unscaled(ctx, index).dims, *value.dims[axis + 1 :])
    )


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
    looked_up = combine(ctx, chosen, multiply=False).dims
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
    axis %= len(values[0].dims)
    others = combine(
        ctx,
        [Value((*v.dims[:axis], (), *v.dims[axis + 1 :]), v.zero) for v in values],
        multiply=False,
    )
    joined = resolve((Cat(tuple(value.dims[axis] for value in values)),))
    return Value(
        (*others.dims[:axis], joined, *others.dims[axis + 1 :]), all(v.zero for v in values)
    )


@rule("stack")
def _stack(ctx: Context, values: Sequence[Value], axis: int = 0) -> Value:
    axis %= len(values[0].dims) + 1
    return _cat(ctx, [replace(v, dims=(*v.dims[:axis], (), *v.dims[axis:])) for v in values], axis)


@rule("constant_pad_nd")
def _pad(ctx: Context, value: Value, padding: Sequence[int], number: Number = 0) -> Value:
    dims = list(value.dims)
    for i in range(len(padding) // 2):
        axis, (before, after) = len(dims) - 1 - i, padding[2 * i : 2 * i + 2]
        if min(before, after) < 0 or number != 0:
            ctx.algebra.fix(dims[axis])
            dims[axis] = fixed(size(dims[axis]) + before + after, plain=False)
        else:
            parts = [wild(before, FREE), dims[axis], wild(after, FREE)]
            dims[axis] = resolve(
                (Cat(tuple(p for p, n in zip(parts, (before, 1, after), strict=True) if n)),)
            )
    padded = Value(tuple(dims), value.zero)
    return padded if number == 0 else replace(unscaled(ctx, padded), zero=False)


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
