"""Values of the graph and what every rule needs: broadcasting, contraction, reduction, reshaping, selection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from zoo.tracing.algebra import Algebra
from zoo.tracing.dims import (
    Atom,
    Cat,
    Dim,
    Factor,
    Leaf,
    Merge,
    Per,
    choose,
    fixed,
    leaves,
    relabel,
    resolve,
    size,
)
from zoo.tracing.scales import Scale


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        dims: What stands along each axis.
        zero: Whether every entry is 0, whatever the parameters.
    """

    dims: tuple[Dim, ...]
    zero: bool = False


@dataclass
class Context:
    """What the rules share.

    Attributes:
        algebra: The algebra of axes, with its equations.
        node: Name of the node at hand.
        shape: Shape of its (first) output.
        strides: Strides of its first input.
        selectors: Splits whose first part is taken apart later: input of the next run.
        reads: For each parameter the node that contracted it first, and the axes that it
            contracted.
        activations: Names of the non-linearities that act on the neurons of an atom.
    """

    algebra: Algebra
    node: str = ""
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    selectors: set[tuple[str, int]] = field(default_factory=set)
    reads: dict[str, tuple[str, set[int]]] = field(default_factory=dict)
    activations: dict[Atom, set[str]] = field(default_factory=dict)


def rescale(value: Value, change: Callable[[Scale], Scale], zero: bool = False) -> Value:
    """Change the scale along every axis."""
    dims = [
        relabel(resolve(dim), lambda leaf: replace(leaf, scale=change(leaf.scale)))
        for dim in value.dims
    ]
    return Value(tuple(dims), zero)


def unscaled(ctx: Context, value: Value) -> Value:
    """Demand that no scale acts on a value."""
    return rescale(value, ctx.algebra.equations.vanish, value.zero)


def combine(ctx: Context, values: Sequence[Value], multiply: bool) -> Value:
    """Add or multiply values, with broadcasting."""
    rank = max(len(value.dims) for value in values)
    padded = [((),) * (rank - len(value.dims)) + value.dims for value in values]
    merge: Merge = Scale.__add__ if multiply else ctx.algebra.equations.equal
    dims = []
    for axis in range(rank):
        present = [dims[axis] for dims in padded if resolve(dims[axis])]
        total = present[0] if present else ()
        for other in present[1:]:
            total = ctx.algebra.same(total, other, merge)
        constant = any(
            not resolve(dims[axis]) and not v.zero for dims, v in zip(padded, values, strict=True)
        )
        if constant and not multiply:
            total = relabel(
                resolve(total),
                lambda leaf: replace(leaf, scale=ctx.algebra.equations.vanish(leaf.scale)),
            )
        dims.append(total)
    zero = any(v.zero for v in values) if multiply else all(v.zero for v in values)
    return Value(tuple(dims), zero)


def contract(ctx: Context, one: Dim, other: Dim) -> None:
    """Sum over an axis of a product of two values."""
    for leaf in [*leaves(resolve(one)), *leaves(resolve(other))]:
        if leaf.source is not None:
            name, axis = leaf.source
            node, axes = ctx.reads.setdefault(name, (ctx.node, set()))
            if node == ctx.node:
                axes.add(axis)
    ctx.algebra.same(one, other, ctx.algebra.equations.cancel)


def reduce(
    ctx: Context,
    value: Value,
    axes: Sequence[int],
    keepdim: bool,
    change: Callable[[Scale], Scale] = lambda scale: scale,
) -> Value:
    """Reduce axes by a function that does not depend on their order."""
    rank = len(value.dims)
    reduced = {axis % rank for axis in axes} if rank else set()
    for axis in reduced:
        for leaf in leaves(resolve(value.dims[axis])):
            ctx.algebra.equations.vanish(leaf.scale)
    kept = rescale(value, change).dims
    return Value(
        tuple(
            () if i in reduced else dim for i, dim in enumerate(kept) if keepdim or i not in reduced
        )
    )


def pick(ctx: Context, value: Value, axis: int, start: int, length: int) -> Value:
    """Take some consecutive positions of an axis; the axis stays."""
    axis %= len(value.dims)
    dim = resolve(value.dims[axis])
    total = size(dim)
    if length == total:
        return value
    if len(dim) == 1 and isinstance(dim[0], Leaf) and (dim[0].atom.split_at or dim[0].atom.fixed):
        return _pick_of_selector(ctx, value, axis, dim[0], range(start, start + length))
    sizes = [n for n in (start, length, total - start - length) if n]
    parts = ctx.algebra.cut(dim, sizes)
    if parts is None:
        ctx.algebra.fix(dim)
        return _with(value, axis, fixed(length, plain=False))
    return _with(value, axis, parts[1 if start else 0])


def _pick_of_selector(ctx: Context, value: Value, axis: int, leaf: Leaf, chosen: range) -> Value:
    atom = leaf.atom
    if atom.split_at:
        ctx.selectors.add(atom.split_at)
    ctx.algebra.fix((leaf,))
    if len(chosen) == 1:
        return _with(
            Value(tuple(choose(resolve(dim), atom, chosen[0]) for dim in value.dims), value.zero),
            axis,
            (),
        )
    selector = Atom(len(chosen), fixed=True, plain=atom.plain)

    def narrowed(dim: Dim) -> Dim:
        out: list[Factor] = []
        for factor in resolve(dim):
            if isinstance(factor, Per) and factor.selector is atom:
                out.append(Per(selector, tuple(factor.parts[i] for i in chosen)))
            elif isinstance(factor, Leaf):
                out.append(factor)
            else:
                out.append(replace(factor, parts=tuple(map(narrowed, factor.parts))))
        return tuple(out)

    return _with(Value(tuple(map(narrowed, value.dims)), value.zero), axis, (Leaf(selector),))


def _with(value: Value, axis: int, dim: Dim) -> Value:
    return Value((*value.dims[:axis], dim, *value.dims[axis + 1 :]), value.zero)


def reshape(ctx: Context, dims: Sequence[Dim], sizes: Sequence[int]) -> tuple[Dim, ...]:
    """What stands along the axes of a value after it is viewed with other sizes."""
    waiting = [dim for dim in map(resolve, dims) if size(dim) > 1]
    places = [place for place, n in enumerate(sizes) if n > 1]
    out: list[Dim] = [()] * len(sizes)
    while waiting:
        block, wanted = [waiting.pop(0)], [places.pop(0)]
        have, need = size(block[0]), sizes[wanted[0]]
        while have != need:
            if have < need:
                block.append(waiting.pop(0))
                have *= size(block[-1])
            else:
                wanted.append(places.pop(0))
                need *= sizes[wanted[-1]]
        factors = [factor for dim in block for factor in dim]
        viewed = _factorize(ctx, factors, [(place, sizes[place]) for place in wanted])
        if viewed is None:
            ctx.algebra.fix(tuple(factors))
            viewed = [fixed(sizes[place], plain=False) for place in wanted]
        for place, dim in zip(wanted, viewed, strict=True):
            out[place] = dim
    return tuple(out)


def _factorize(
    ctx: Context, factors: list[Factor], places: Sequence[tuple[int, int]]
) -> list[Dim] | None:
    waiting, out = tuple(factors), []
    for place, need in places:
        key = (ctx.node, place)
        pair = ctx.algebra.divide(
            waiting, need, lambda factor, outer, key=key: _split(ctx, factor, outer, key)
        )
        if pair is None:
            return None
        waiting = pair[1]
        out.append(_product(pair[0]))
    return out


def _split(
    ctx: Context, factor: Factor, outer: int, key: tuple[str, int]
) -> tuple[Factor, Factor] | None:
    if not isinstance(factor, Leaf):
        return ctx.algebra.split(factor, outer)
    if key in ctx.algebra.selectors:
        parts = ctx.algebra.cut((factor,), [factor.atom.size // outer] * outer)
        return None if parts is None else ctx.algebra.split(Cat(tuple(parts)), outer)
    pair = ctx.algebra.split(factor, outer)
    if pair is not None and isinstance(pair[0], Leaf):
        pair[0].atom.split_at = key
    return pair


def _product(factors: Sequence[Factor]) -> Dim:
    """One axis of several factors; an axis that depends on a factor before it becomes a direct sum."""
    factors = resolve(tuple(factors))
    for i, factor in enumerate(factors):
        rest = factors[i + 1 :]
        if isinstance(factor, Leaf) and any(
            isinstance(f, Per) and f.selector is factor.atom for f in rest
        ):
            parts = tuple(choose(rest, factor.atom, index) for index in range(factor.atom.size))
            return resolve((*factors[:i], Cat(parts)))
    return factors


def settle(ctx: Context, value: Value) -> Value:
    """Identify alternatives whose selector is no longer an axis of the value."""
    present = frozenset(leaf.atom for dim in value.dims for leaf in leaves(resolve(dim)))
    return Value(tuple(ctx.algebra.collapse(dim, present) for dim in value.dims), value.zero)
