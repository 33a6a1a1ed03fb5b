"""Which neurons stand along an axis of a value.

An axis (`Dim`) is a product of factors in C order. A factor is an atom (neurons of one kind), a
direct sum of axes (`Cat`), or an axis whose neurons depend on the index along another axis (`Per`).
An atom that turns out to be a product or a sum is *bound* to it. An atom is *fixed* when no
permutation of its neurons is known to leave the network's function as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod
from typing import Union

from zoo.tracing.scales import ONE, Scale

Merge = Callable[[Scale, Scale], Scale]
Source = tuple[str, int]


@dataclass(eq=False)
class Atom:
    """Neurons of one kind.

    Attributes:
        size: How many.
        fixed: Whether they must stay in their order.
        plain: Whether they are positions (of a kernel, an image, a sequence) rather than neurons.
        bound: What the atom turned out to be, if it is not itself.
        split_at: Reshape of the graph, and output axis, by which the atom was split from another.
        serial: Atoms that are identified keep the oldest name.
    """

    size: int
    fixed: bool = False
    plain: bool = False
    bound: "Dim | None" = None
    split_at: tuple[str, int] | None = None
    serial: int = field(default_factory=count().__next__)


@dataclass(frozen=True)
class Leaf:
    """An atom on an axis of a value, and the scale of the value along it.

    Attributes:
        atom: The atom.
        scale: The scale.
        source: For an axis of a parameter: its name, and which axis.
    """

    atom: Atom
    scale: Scale = ONE
    source: Source | None = None


@dataclass(frozen=True)
class Cat:
    """A direct sum of axes."""

    parts: tuple["Dim", ...]


@dataclass(frozen=True)
class Per:
    """An axis that is `parts[i]` at index `i` along the axis `selector` of the same value."""

    selector: Atom
    parts: tuple["Dim", ...]


Factor = Union[Leaf, Cat, Per]  # noqa: UP007
Dim = tuple[Factor, ...]


def fixed(size: int, plain: bool = True) -> Dim:
    """An axis of positions."""
    return () if size == 1 else (Leaf(Atom(size, fixed=True, plain=plain)),)


def wild(size: int, free: bool = False) -> Dim:
    """An axis along which a value is constant: any neurons may stand there.

    Args:
        size: Its length.
        free: Whether any scale would do, as the value is zero.

    Returns:
        The axis.
    """
    return () if size == 1 else (Leaf(Atom(size), Scale(free=free)),)


def size(dim: Dim) -> int:
    """Length of an axis."""
    return prod(map(factor_size, dim))


def factor_size(factor: Factor) -> int:
    """Number of positions of a factor."""
    if isinstance(factor, Leaf):
        return factor.atom.size
    return sum(map(size, factor.parts)) if isinstance(factor, Cat) else size(factor.parts[0])


def resolve(dim: Dim) -> Dim:
    """The axis with every bound atom replaced by what it is, and nothing superfluous."""
    if all(isinstance(f, Leaf) and f.atom.bound is None and f.atom.size > 1 for f in dim):
        return dim
    out: list[Factor] = []
    for factor in dim:
        if isinstance(factor, Leaf):
            bound = factor.atom.bound
            if bound is not None:
                out += resolve(
                    relabel(bound, lambda leaf, own=factor: Leaf(leaf.atom, own.scale, own.source))
                )
            elif factor.atom.size > 1:
                out.append(factor)
        elif isinstance(factor, Per):
            parts = tuple(map(resolve, factor.parts))
            if any(parts):
                out.append(Per(_root(factor.selector), parts))
        else:
            out += joined([resolve(part) for part in factor.parts])
    return tuple(out)


def _root(atom: Atom) -> Atom:
    while atom.bound is not None and len(atom.bound) == 1 and isinstance(atom.bound[0], Leaf):
        atom = atom.bound[0].atom
    return atom


def joined(parts: Sequence[Dim]) -> Dim:
    """The direct sum of resolved axes."""
    flat: list[Dim] = []
    for part in parts:
        flat += part[0].parts if len(part) == 1 and isinstance(part[0], Cat) else (part,)
    return flat[0] if len(flat) == 1 else (Cat(tuple(flat)),)


def rewrite(dim: Dim, change: Callable[[Factor], Dim | None]) -> Dim:
    """Replace factors of an axis.

    Args:
        dim: The axis.
        change: The axis that a factor becomes; None leaves a leaf, and looks into the parts of any
            other factor.

    Returns:
        The axis.
    """
    out: list[Factor] = []
    for factor in dim:
        changed = change(factor)
        if changed is not None:
            out += changed
        elif isinstance(factor, Leaf):
            out.append(factor)
        else:
            out.append(replace(factor, parts=tuple(rewrite(part, change) for part in factor.parts)))
    return tuple(out)


def relabel(dim: Dim, change: Callable[[Leaf], Leaf]) -> Dim:
    """Change every leaf of an axis."""
    return rewrite(dim, lambda factor: (change(factor),) if isinstance(factor, Leaf) else None)


def leaves(dim: Dim) -> Iterator[Leaf]:
    """All leaves of an axis."""
    return _leaves_of_resolved(resolve(dim))


def _leaves_of_resolved(dim: Dim) -> Iterator[Leaf]:
    for factor in dim:
        if isinstance(factor, Leaf):
            yield factor
        else:
            for part in factor.parts:
                yield from _leaves_of_resolved(part)


def choose(dim: Dim, selector: Atom, index: int) -> Dim:
    """The axis at one index along a selector."""

    def chosen(factor: Factor) -> Dim | None:
        if isinstance(factor, Per) and factor.selector is selector:
            return choose(factor.parts[index], selector, index)
        return None

    return rewrite(dim, chosen)
