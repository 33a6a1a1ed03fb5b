"""Values of the graph, and what rules need: broadcasting, contraction, reshaping, selection."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from zoo.tracing.algebra import Algebra, Indivisible
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
    rewrite,
    size,
)
from zoo.tracing.rules import Number
from zoo.tracing.scales import Equations, Scale


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        dims: What stands along each axis.
        zero: Whether every entry is 0, whatever the parameters.
    """

    dims: tuple[Dim, ...]
    zero: bool = False

    def leaves(self) -> Iterator[Leaf]:
        """All leaves of all axes."""
        return (leaf for dim in self.dims for leaf in leaves(dim))

    def of(self, dims: Iterable[Dim]) -> "Value":
        """The value with other axes."""
        return replace(self, dims=tuple(dims))

    def each(self, change: Callable[[Dim], Dim]) -> "Value":
        """The value with every axis changed."""
        return self.of(change(resolve(dim)) for dim in self.dims)

    def padded(self, rank: int) -> tuple[Dim, ...]:
        """The axes, with axes of size 1 before them up to a rank."""
        return ((),) * (rank - len(self.dims)) + self.dims

    def put(self, axis: int, *dims: Dim) -> "Value":
        """The value with others in place of one axis."""
        axis %= len(self.dims)
        return self.of((*self.dims[:axis], *dims, *self.dims[axis + 1 :]))

    def grown(self, axis: int) -> "Value":
        """The value with a new axis of size 1."""
        axis %= len(self.dims) + 1
        return self.of((*self.dims[:axis], (), *self.dims[axis:]))


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
        operands: Parameters that some node contracted.
        activations: Names of the non-linearities that act on the neurons of an atom.
    """

    algebra: Algebra
    node: str = ""
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    selectors: set[tuple[str, int]] = field(default_factory=set)
    reads: dict[str, tuple[str, set[int]]] = field(default_factory=dict)
    operands: set[str] = field(default_factory=set)
    activations: dict[Atom, set[str]] = field(default_factory=dict)

    @property
    def equations(self) -> Equations:
        """The equations of scales."""
        return self.algebra.equations

    def fix(self, *dims: Dim) -> None:
        """Forbid every permutation and scale of axes."""
        self.algebra.fix(*dims)


def rescale(value: Value, change: Callable[[Scale], Scale], zero: bool = False) -> Value:
    """Change the scale along every axis."""
    rescaled = partial(relabel, change=lambda leaf: replace(leaf, scale=change(leaf.scale)))
    return replace(value.each(rescaled), zero=zero)


def unscaled(ctx: Context, value: Value) -> Value:
    """Demand that no scale acts on a value."""
    return rescale(value, ctx.equations.vanish, value.zero)


def positive(ctx: Context, value: Value) -> Value:
    """Demand that no sign acts on a value."""
    return rescale(value, ctx.equations.vanish_sign)


def shifted(ctx: Context, value: Value, number: Number) -> Value:
    """Add a number to every entry."""
    return value if number == 0 else rescale(value, ctx.equations.vanish)


def add(ctx: Context, *values: Value) -> Value:
    """Add values, or apply any function that commutes with equal scales, with broadcasting."""
    equations = ctx.equations
    dims = []
    for axis in _aligned(values):
        total = _identified(ctx, axis, equations.equal)
        # What is added along an axis of size 1 does not scale with the neurons there.
        if any(not resolve(d) and not v.zero for d, v in zip(axis, values, strict=True)):
            total = rescale(Value((total,)), equations.vanish).dims[0]
        dims.append(total)
    return Value(tuple(dims), all(value.zero for value in values))


def multiply(ctx: Context, *values: Value) -> Value:
    """Multiply values, with broadcasting."""
    dims = [_identified(ctx, axis, Scale.__add__) for axis in _aligned(values)]
    return Value(tuple(dims), any(value.zero for value in values))


def _aligned(values: Sequence[Value]) -> Iterator[tuple[Dim, ...]]:
    """For each axis of the broadcast shape the axes of all values."""
    rank = max(len(value.dims) for value in values)
    return zip(*(value.padded(rank) for value in values), strict=True)


def _identified(ctx: Context, dims: Sequence[Dim], merge: Merge) -> Dim:
    present = [dim for dim in dims if resolve(dim)]
    total = present[0] if present else ()
    for other in present[1:]:
        total = ctx.algebra.same(total, other, merge)
    return total


def contract(ctx: Context, one: Dim, other: Dim) -> None:
    """Sum over an axis of a product of two values."""
    for leaf in (*leaves(one), *leaves(other)):
        if leaf.source is not None:
            name, axis = leaf.source
            node, axes = ctx.reads.setdefault(name, (ctx.node, set()))
            if node == ctx.node:
                axes.add(axis)
    ctx.algebra.same(one, other, ctx.equations.cancel)


def mark_operands(ctx: Context, *values: Value) -> None:
    """Note the parameters among the values of a node that contracts them."""
    sources = [leaf.source for value in values for leaf in value.leaves()]
    ctx.operands.update(source[0] for source in sources if source is not None)


def chosen_axes(value: Value, dim: Any) -> set[int]:
    """Numbers, from 0, of the axes that an argument `dim` names; all if it names none."""
    rank = len(value.dims)
    if dim is None or dim == []:
        return set(range(rank))
    return {axis % rank for axis in ([dim] if isinstance(dim, int) else dim) if rank}


def reduce(
    ctx: Context,
    value: Value,
    dim: Any,
    keepdim: bool,
    change: Callable[[Scale], Scale] = lambda scale: scale,
) -> Value:
    """Reduce the axes that `dim` names by a function that does not depend on their order."""
    reduced = chosen_axes(value, dim)
    for axis in reduced:
        for leaf in leaves(value.dims[axis]):
            ctx.equations.vanish(leaf.scale)
    kept = enumerate(rescale(value, change).dims)
    left = (() if i in reduced else dim for i, dim in kept if keepdim or i not in reduced)
    return Value(tuple(left))


def pick(ctx: Context, value: Value, axis: int, start: int, length: int) -> Value:
    """Take some consecutive positions of an axis; the axis stays."""
    dim = resolve(value.dims[axis])
    total = size(dim)
    if length == total:
        return value
    if len(dim) == 1 and isinstance(dim[0], Leaf) and (dim[0].atom.split_at or dim[0].atom.fixed):
        return _pick_of_selector(ctx, value, axis, dim[0], range(start, start + length))
    sizes = [n for n in (start, length, total - start - length) if n]
    try:
        return value.put(axis, ctx.algebra.cut(dim, sizes)[1 if start else 0])
    except Indivisible:
        ctx.fix(dim)
        return value.put(axis, fixed(length, plain=False))


def _pick_of_selector(ctx: Context, value: Value, axis: int, leaf: Leaf, chosen: range) -> Value:
    """Take positions of an axis that others may depend on."""
    atom = leaf.atom
    if atom.split_at:
        ctx.selectors.add(atom.split_at)
    ctx.fix((leaf,))
    if len(chosen) == 1:
        return value.each(lambda dim: choose(dim, atom, chosen[0])).put(axis, ())
    selector = Atom(len(chosen), fixed=True, plain=atom.plain)
    narrowed = partial(_narrowed, atom, selector, chosen)
    return value.each(partial(rewrite, change=narrowed)).put(axis, (Leaf(selector),))


def _narrowed(atom: Atom, selector: Atom, chosen: range, factor: Factor) -> Dim | None:
    if isinstance(factor, Per) and factor.selector is atom:
        return (Per(selector, tuple(factor.parts[i] for i in chosen)),)
    return None


def reshape(ctx: Context, dims: Sequence[Dim], sizes: Sequence[int]) -> tuple[Dim, ...]:
    """What stands along the axes of a value after it is viewed with other sizes."""
    out: list[Dim] = [()] * len(sizes)
    for factors, places in _blocks(dims, sizes):
        try:
            viewed = _factorize(ctx, factors, sizes, places)
        except Indivisible:
            ctx.fix(factors)
            viewed = [fixed(sizes[place], plain=False) for place in places]
        for place, dim in zip(places, viewed, strict=True):
            out[place] = dim
    return tuple(out)


def _blocks(dims: Sequence[Dim], sizes: Sequence[int]) -> Iterator[tuple[Dim, list[int]]]:
    """The smallest runs of axes that are viewed as a run of places; size 1 is in none."""
    axes = iter([dim for dim in map(resolve, dims) if size(dim) > 1])
    open_places = iter([place for place, n in enumerate(sizes) if n > 1])
    for first in axes:
        factors, places = first, [next(open_places)]
        have, need = size(factors), sizes[places[0]]
        while have != need:
            if have < need:
                factors += next(axes)
                have = size(factors)
            else:
                places.append(next(open_places))
                need *= sizes[places[-1]]
        yield factors, places


def _factorize(
    ctx: Context, waiting: Dim, sizes: Sequence[int], places: Sequence[int]
) -> list[Dim]:
    out = []
    for place in places:
        split = partial(_split, ctx, (ctx.node, place))
        factors, waiting = ctx.algebra.divide(waiting, sizes[place], split)
        out.append(_product(factors))
    return out


def _split(ctx: Context, key: tuple[str, int], factor: Factor, outer: int) -> tuple[Factor, Factor]:
    if isinstance(factor, Leaf) and key in ctx.algebra.selectors:
        factor = Cat(tuple(ctx.algebra.cut((factor,), [factor.atom.size // outer] * outer)))
    head, tail = ctx.algebra.split(factor, outer)
    if isinstance(factor, Leaf) and isinstance(head, Leaf):
        head.atom.split_at = key
    return head, tail


def _product(factors: Sequence[Factor]) -> Dim:
    """One axis of several factors; one that depends on a factor before it makes a direct sum."""
    factors = resolve(tuple(factors))
    for i, factor in enumerate(factors):
        rest = factors[i + 1 :]
        selectors = [other.selector for other in rest if isinstance(other, Per)]
        if isinstance(factor, Leaf) and factor.atom in selectors:
            parts = tuple(choose(rest, factor.atom, index) for index in range(factor.atom.size))
            return resolve((*factors[:i], Cat(parts)))
    return factors


def settle(ctx: Context, value: Value) -> Value:
    """Identify alternatives whose selector is no longer an axis of the value."""
    present = frozenset(leaf.atom for leaf in value.leaves())
    return value.each(partial(ctx.algebra.collapse, keep=present))
