"""Rules of matrix products, attention, convolutions, pooling and norms."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from zoo.tracing.dims import Dim, fixed, size
from zoo.tracing.rules import RULES, Number, rule
from zoo.tracing.scales import ONE, Scale, unsigned
from zoo.tracing.values import (
    Context,
    Value,
    add,
    contract,
    mark_operands,
    multiply,
    positive,
    reduce,
    rescale,
    reshape,
    unscaled,
)


def _contraction(ctx: Context, one: Value, other: Value) -> Value:
    """`[..., k]` times `[..., k, n]` with leading axes that are batched."""
    mark_operands(ctx, one, other)
    contract(ctx, one.dims[-1], other.dims[-2])
    batch = multiply(ctx, Value(one.dims[:-2]), Value(other.dims[:-2]))
    dims: tuple[Dim, ...] = (*batch.dims, one.dims[-2], other.dims[-1])
    return Value(dims, one.zero or other.zero)


rule("mm", "bmm", "matmul")(_contraction)


@rule("addmm", "baddbmm")
def _addmm(ctx: Context, bias: Value, one: Value, other: Value, **_kwargs: Any) -> Value:
    return add(ctx, _contraction(ctx, one, other), bias)


@rule("mv", "dot")
def _times_vector(ctx: Context, one: Value, vector: Value) -> Value:
    contract(ctx, one.dims[-1], vector.dims[-1])
    return Value(one.dims[:-1])


@rule("linear")
def _linear(ctx: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    product = _contraction(ctx, x, Value(weight.dims[::-1]))
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
        ctx.fix(query.dims[-2], key.dims[-2])
    if enable_gqa and size(key.dims[-3]) > 1:
        key, value = _shared_heads(ctx, query, key, value)
    swapped = key.of((*key.dims[:-2], key.dims[-1], key.dims[-2]))
    scores = unscaled(ctx, _contraction(ctx, query, swapped))
    if attn_mask is not None:
        scores = add(ctx, scores, unscaled(ctx, attn_mask))
    return _contraction(ctx, scores, value)


def _shared_heads(ctx: Context, query: Value, key: Value, value: Value) -> tuple[Value, Value]:
    """Each head of the keys serves several neighboring heads of the queries."""
    heads, served_heads = query.dims[-3], size(query.dims[-3]) // size(key.dims[-3])
    served = reshape(ctx, [heads], [size(key.dims[-3]), served_heads])[1]
    return key.put(-3, (*key.dims[-3], *served)), value.put(-3, (*value.dims[-3], *served))


@rule("_trilinear")
def _trilinear(ctx: Context, *args: Any) -> Value:
    (*values, grown_one, grown_two, grown_three, summed) = args[:7]
    grown = []
    for value, axes in zip(values, (grown_one, grown_two, grown_three), strict=True):
        dims = list(value.dims)
        for axis in sorted(axes):
            dims.insert(axis, ())
        grown.append(value.of(dims))
    return reduce(ctx, multiply(ctx, *grown), summed, keepdim=False)


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
    mark_operands(ctx, weight)
    positions = Value((*weight.dims[2:], *x.dims[-rank:]))
    ctx.fix(*positions.dims)
    for leaf in positions.leaves():
        leaf.atom.plain = True
    mix = _grouped if groups > 1 else _ungrouped
    written = mix(ctx, x.dims[-rank - 1], weight, transposed, groups)
    total = Value((*x.dims[: -rank - 1], written, *map(fixed, ctx.shape[-rank:])))
    return total if bias is None else add(ctx, total, Value((bias.dims[0], *((),) * rank)))


def _ungrouped(ctx: Context, channels: Dim, weight: Value, transposed: bool, _groups: int) -> Dim:
    """The channels that a convolution writes."""
    written, read = weight.dims[1::-1] if transposed else weight.dims[:2]
    contract(ctx, channels, read)
    return written


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
    ctx.fix(*x.dims[-rank:])
    return x.of((*x.dims[:-rank], *map(fixed, ctx.shape[-rank:])))


def _max_pool(
    rank: int, ctx: Context, x: Value, *_args: Any, **_kwargs: Any
) -> tuple[Value, Value]:
    pooled = _average_pool(rank, ctx, positive(ctx, x))
    return pooled, rescale(pooled, lambda _: ONE)


AVERAGES = (
    *("avg_pool#d", "_adaptive_avg_pool#d", "adaptive_avg_pool#d"),
    *("reflection_pad#d", "replication_pad#d", "upsample__nearest_exact#d"),
    *("upsample_nearest#d", "upsample_bilinear#d", "upsample_linear#d"),
    *("upsample_trilinear#d", "upsample_bicubic#d"),
)
MAXIMA = ("max_pool#d_with_indices", "adaptive_max_pool#d")
for _rank in (1, 2, 3):
    RULES |= {name.replace("#", str(_rank)): partial(_average_pool, _rank) for name in AVERAGES}
    RULES |= {name.replace("#", str(_rank)): partial(_max_pool, _rank) for name in MAXIMA}


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
    return value.of((value.dims[0], *((),) * (rank - 2)))


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
    norm = rescale(direction, unsigned)
    if others:
        norm = reduce(ctx, direction, others, keepdim=True, change=unsigned)
    inverse = rescale(norm, lambda scale: scale * -1)
    return multiply(ctx, direction, inverse, length), norm
