"""Axes that are identified, split and joined, as the operators of a graph demand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise

from zoo.tracing.dims import (
    Atom,
    Cat,
    Dim,
    Factor,
    Leaf,
    Merge,
    Per,
    factor_size,
    fixed,
    joined,
    leaves,
    relabel,
    resolve,
    rewrite,
    size,
)
from zoo.tracing.scales import Equations

Split = Callable[[Factor, int], tuple[Factor, Factor]]


class Indivisible(Exception):
    """An axis that is not known to be made of parts of the sizes that are wanted."""


class Algebra:
    """Identifies, splits and joins axes, and collects what that demands of the scales.

    Args:
        selectors: Reshapes and output axes by which an axis is known to be split into parts that
            are taken apart later.
    """

    def __init__(self, selectors: frozenset[tuple[str, int]] = frozenset()):
        self.equations = Equations()
        self.selectors = selectors

    def fix(self, *dims: Dim) -> None:
        """Forbid every permutation and scale of axes."""
        for dim in dims:
            for leaf in leaves(dim):
                leaf.atom.fixed = True
                self.equations.vanish(leaf.scale)

    def same(self, one: Dim, other: Dim, merge: Merge) -> Dim:
        """Identify two axes of the same length.

        Args:
            one: An axis.
            other: Another.
            merge: Joins the scales of two leaves.

        Returns:
            The axis that both are.
        """
        left, right, out = list(resolve(one)), list(resolve(other)), []
        while left and right:
            sizes = factor_size(left[0]), factor_size(right[0])
            longer = left if sizes[0] > sizes[1] else right
            try:
                if sizes[0] != sizes[1]:
                    longer[:1] = self.split(longer[0], min(sizes))
            except Indivisible:
                return (*out, *self._give_up(left, right))
            out += self._same_factor(left.pop(0), right.pop(0), merge)
        return resolve(tuple(out))

    def _give_up(self, one: Sequence[Factor], other: Sequence[Factor]) -> Dim:
        self.fix(tuple(one), tuple(other))
        return fixed(size(tuple(other)), plain=False)

    def _same_factor(self, a: Factor, b: Factor, merge: Merge) -> Dim:
        if isinstance(a, Leaf) and isinstance(b, Leaf):
            return (self._same_leaf(a, b, merge),)
        if isinstance(a, Leaf):
            return self._bind_to(a, (b,), merge)
        if isinstance(b, Leaf):
            return self._bind_to(b, (a,), lambda scale, new: merge(new, scale))
        if isinstance(a, Per) and isinstance(b, Per) and a.selector is b.selector:
            parts = [self.same(x, y, merge) for x, y in zip(a.parts, b.parts, strict=True)]
            return (Per(a.selector, tuple(parts)),)
        if isinstance(a, Cat) and isinstance(b, Cat):
            return self._same_sum(a, b, merge)
        return self.same(self.collapse((a,)), self.collapse((b,)), merge)

    def _same_sum(self, a: Cat, b: Cat, merge: Merge) -> Dim:
        bounds = sorted({0, *_bounds(a), *_bounds(b)})
        sizes = [end - start for start, end in pairwise(bounds)]
        try:
            pairs = zip(self.cut((a,), sizes), self.cut((b,), sizes), strict=True)
        except Indivisible:
            return self._give_up([a], [b])
        return (Cat(tuple(self.same(x, y, merge) for x, y in pairs)),)

    def _same_leaf(self, a: Leaf, b: Leaf, merge: Merge) -> Leaf:
        scale = merge(a.scale, b.scale)
        kept, other = sorted((a.atom, b.atom), key=_precedence)
        if kept is not other:
            if not other.fixed or other.plain:
                other.bound = (Leaf(kept),)
            kept.split_at = kept.split_at or other.split_at
        return Leaf(kept, scale, a.source or b.source)

    def _bind_to(self, leaf: Leaf, dim: Dim, merge: Merge) -> Dim:
        if leaf.atom.fixed:
            self.fix(dim)
            return (leaf,)
        dim = self.collapse(dim)
        if len(dim) == 1 and isinstance(dim[0], Leaf):
            return self._same_factor(leaf, dim[0], merge)
        scale = self._unscaled(leaf).scale
        leaf.atom.bound = relabel(dim, lambda other: Leaf(other.atom))
        return relabel(
            dim,
            lambda other: Leaf(other.atom, merge(scale, other.scale), leaf.source or other.source),
        )

    def collapse(self, dim: Dim, keep: frozenset[Atom] = frozenset()) -> Dim:
        """Identify the alternatives of every `Per` whose selector is not among those to keep."""
        return resolve(rewrite(resolve(dim), partial(self._collapsed, keep)))

    def _collapsed(self, keep: frozenset[Atom], factor: Factor) -> Dim | None:
        if not isinstance(factor, Per) or factor.selector in keep:
            return None
        first, *others = (self.collapse(part, keep) for part in factor.parts)
        for other in others:
            first = self.same(first, other, self.equations.equal)
        return first

    def split(self, factor: Factor, outer: int) -> tuple[Factor, Factor]:
        """Write a factor as a product of two, the first of a given size.

        Args:
            factor: The factor.
            outer: The size.

        Returns:
            Both.

        Raises:
            Indivisible: If it is not known how.
        """
        inner, rest = divmod(factor_size(factor), outer)
        if rest:
            raise Indivisible
        if isinstance(factor, Leaf):
            head, tail = self._leaves_of(factor, (outer, inner))
            factor.atom.bound = (Leaf(head.atom), Leaf(tail.atom))
            return head, tail
        if isinstance(factor, Per):
            heads, tails = zip(*[self.divide(part, outer) for part in factor.parts], strict=True)
            return replace(factor, parts=heads), replace(factor, parts=tails)
        selector = Atom(outer, fixed=True, plain=True)
        return Leaf(selector), Per(selector, tuple(self.cut((factor,), [inner] * outer)))

    def _unscaled(self, leaf: Leaf) -> Leaf:
        """The leaf with no scale acting on it, unless it is zero."""
        return leaf if leaf.scale.free else replace(leaf, scale=self.equations.vanish(leaf.scale))

    def _leaves_of(self, leaf: Leaf, sizes: Sequence[int]) -> list[Leaf]:
        """New atoms like that of a leaf, which turns out to be made of them."""
        plain = self._unscaled(leaf)
        atoms = [Atom(n, leaf.atom.fixed, leaf.atom.plain) for n in sizes]
        return [replace(plain, atom=atom) for atom in atoms]

    def divide(self, dim: Dim, outer: int, split: Split | None = None) -> tuple[Dim, Dim]:
        """Write an axis as a product of two, the first of a given size.

        Args:
            dim: The axis.
            outer: The size.
            split: Splits a factor; `self.split` if None.

        Returns:
            Both.

        Raises:
            Indivisible: If it is not known how.
        """
        head, rest, need = [], list(resolve(dim)), outer
        while need > 1:
            factor = rest.pop(0)
            have = factor_size(factor)
            if max(have, need) % min(have, need):
                raise Indivisible
            if have > need:
                factor, inner = (split or self.split)(factor, need)
                rest.insert(0, inner)
            head.append(factor)
            need //= factor_size(factor)
        return tuple(head), tuple(rest)

    def cut(self, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
        """Write an axis as a direct sum.

        Args:
            dim: The axis.
            sizes: Of the parts.

        Returns:
            The parts.

        Raises:
            Indivisible: If it is not known how.
        """
        dim = resolve(dim)
        if len(sizes) == 1:
            return [dim]
        factor, *rest = dim
        if rest:
            return self._cut_product(factor, tuple(rest), sizes)
        if isinstance(factor, Leaf):
            parts = self._leaves_of(factor, sizes)
            factor.atom.bound = (Cat(tuple((Leaf(part.atom),) for part in parts)),)
            return [resolve((part,)) for part in parts]
        if isinstance(factor, Per):
            cuts = zip(*[self.cut(part, sizes) for part in factor.parts], strict=True)
            return [resolve((replace(factor, parts=parts),)) for parts in cuts]
        return self._cut_sum(factor, sizes)

    def _cut_product(self, factor: Factor, rest: Dim, sizes: Sequence[int]) -> list[Dim]:
        inner = size(rest)
        if any(n % inner for n in sizes):
            raise Indivisible
        return [(*part, *rest) for part in self.cut((factor,), [n // inner for n in sizes])]

    def _cut_sum(self, total: Cat, sizes: Sequence[int]) -> list[Dim]:
        waiting, out = list(total.parts), []
        for wanted in sizes:
            taken: list[Dim] = []
            while (missing := wanted - sum(map(size, taken))) > 0:
                part = waiting.pop(0)
                if size(part) > missing:
                    part, left = self.cut(part, [missing, size(part) - missing])
                    waiting.insert(0, left)
                taken.append(part)
            out.append(joined([resolve(part) for part in taken]))
        return out


def _bounds(total: Cat) -> list[int]:
    return list(accumulate(map(size, total.parts)))


def _precedence(atom: Atom) -> tuple[bool, bool, int]:
    """Which of two atoms gives both its name: a fixed one, neurons before positions, the oldest."""
    return not atom.fixed, atom.fixed and atom.plain, atom.serial
