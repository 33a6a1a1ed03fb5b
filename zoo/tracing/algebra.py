"""Axes that are identified, split and joined: what the operators of a graph demand of the neurons along them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

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
    size,
)
from zoo.tracing.scales import Equations

Split = Callable[[Factor, int], tuple[Factor, Factor] | None]


class Algebra:
    """Identifies, splits and joins axes, and collects what that demands of the scales.

    Args:
        selectors: Reshapes and output axes by which an axis is known to be split into parts that
            are taken apart later.
    """

    def __init__(self, selectors: frozenset[tuple[str, int]] = frozenset()):
        self.equations = Equations()
        self.selectors = selectors

    def fix(self, dim: Dim) -> Dim:
        """Forbid every permutation and scale of an axis."""
        dim = resolve(dim)
        for leaf in leaves(dim):
            leaf.atom.fixed = True
            self.equations.vanish(leaf.scale)
        return dim

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
            a, b = left.pop(0), right.pop(0)
            na, nb = factor_size(a), factor_size(b)
            if na == nb:
                out += self._same_factor(a, b, merge)
                continue
            big, small = max(na, nb), min(na, nb)
            pair = self.split(a if na == big else b, small) if big % small == 0 else None
            if pair is None:
                return (*out, *self._give_up([a, *left], [b, *right]))
            (left if na == big else right).insert(0, pair[1])
            out += self._same_factor(*((pair[0], b) if na == big else (a, pair[0])), merge)
        return resolve(tuple(out))

    def _give_up(self, one: Sequence[Factor], other: Sequence[Factor]) -> Dim:
        self.fix(tuple(one))
        return fixed(size(self.fix(tuple(other))), plain=False)

    def _same_factor(self, a: Factor, b: Factor, merge: Merge) -> Dim:
        if isinstance(a, Leaf) and isinstance(b, Leaf):
            return (self._same_leaf(a, b, merge),)
        if isinstance(a, Leaf):
            return self._bind_to(a, (b,), merge)
        if isinstance(b, Leaf):
            return self._bind_to(b, (a,), lambda own, new: merge(new, own))
        if isinstance(a, Per) and isinstance(b, Per) and a.selector is b.selector:
            parts = [self.same(x, y, merge) for x, y in zip(a.parts, b.parts, strict=True)]
            return (Per(a.selector, tuple(parts)),)
        if isinstance(a, Cat) and isinstance(b, Cat):
            bounds = sorted({*_bounds(a), *_bounds(b)})
            sizes = [end - start for start, end in zip([0, *bounds], bounds, strict=False)]
            parts, others = self.cut((a,), sizes), self.cut((b,), sizes)
            if parts is not None and others is not None:
                return (
                    Cat(tuple(self.same(x, y, merge) for x, y in zip(parts, others, strict=True))),
                )
        if isinstance(a, Per) or isinstance(b, Per):
            return self.same(self.collapse((a,)), self.collapse((b,)), merge)
        return self._give_up([a], [b])

    def _same_leaf(self, a: Leaf, b: Leaf, merge: Merge) -> Leaf:
        scale = merge(a.scale, b.scale)
        keep, other = a.atom, b.atom
        if keep is not other:
            keep, other = sorted(
                (keep, other),
                key=lambda atom: (not atom.fixed, atom.fixed and atom.plain, atom.serial),
            )
            if not other.fixed or other.plain:
                other.bound = (Leaf(keep),)
            keep.split_at = keep.split_at or other.split_at
        return Leaf(keep, scale, a.source or b.source)

    def _bind_to(self, leaf: Leaf, dim: Dim, merge: Merge) -> Dim:
        if leaf.atom.fixed:
            self.fix(dim)
            return (leaf,)
        dim = self.collapse(dim)
        if len(dim) == 1 and isinstance(dim[0], Leaf):
            return self._same_factor(leaf, dim[0], merge)
        scale = leaf.scale if leaf.scale.free else self.equations.vanish(leaf.scale)
        leaf.atom.bound = relabel(dim, lambda other: Leaf(other.atom))
        return relabel(
            dim,
            lambda other: Leaf(other.atom, merge(scale, other.scale), leaf.source or other.source),
        )

    def collapse(self, dim: Dim, keep: frozenset[Atom] = frozenset()) -> Dim:
        """Identify the alternatives of every `Per` whose selector is not among those to keep."""
        out: list[Factor] = []
        for factor in resolve(dim):
            if isinstance(factor, Per) and factor.selector not in keep:
                first, *others = (self.collapse(part, keep) for part in factor.parts)
                for other in others:
                    first = self.same(first, other, self.equations.equal)
                out += first
            elif isinstance(factor, Leaf):
                out.append(factor)
            else:
                out.append(
                    replace(factor, parts=tuple(self.collapse(part, keep) for part in factor.parts))
                )
        return resolve(tuple(out))

    def split(self, factor: Factor, outer: int) -> tuple[Factor, Factor] | None:
        """Write a factor as a product of two, the first of a given size; None if that is not known to be possible."""
        inner = factor_size(factor) // outer
        if isinstance(factor, Leaf):
            atom = factor.atom
            pair = [Atom(n, atom.fixed, atom.plain) for n in (outer, inner)]
            factor = (
                factor
                if factor.scale.free
                else replace(factor, scale=self.equations.vanish(factor.scale))
            )
            atom.bound = tuple(map(Leaf, pair))
            return replace(factor, atom=pair[0]), replace(factor, atom=pair[1])
        if isinstance(factor, Per):
            pairs = [
                pair for part in factor.parts if (pair := self.divide(part, outer)) is not None
            ]
            if len(pairs) < len(factor.parts):
                return None
            return Per(factor.selector, tuple(p for p, _ in pairs)), Per(
                factor.selector, tuple(p for _, p in pairs)
            )
        parts = self.cut((factor,), [inner] * outer)
        if parts is None:
            return None
        selector = Atom(outer, fixed=True, plain=True)
        return Leaf(selector), Per(selector, tuple(parts))

    def divide(self, dim: Dim, outer: int, split: Split | None = None) -> tuple[Dim, Dim] | None:
        """Write an axis as a product of two, the first of a given size; None if that is not known to be possible."""
        head, rest, need = [], list(resolve(dim)), outer
        while need > 1:
            factor = rest.pop(0)
            have = factor_size(factor)
            if max(have, need) % min(have, need):
                return None
            if have > need:
                pair = (split or self.split)(factor, need)
                if pair is None:
                    return None
                factor = pair[0]
                rest.insert(0, pair[1])
            head.append(factor)
            need //= factor_size(factor)
        return tuple(head), tuple(rest)

    def cut(self, dim: Dim, sizes: Sequence[int]) -> list[Dim] | None:
        """Write an axis as a direct sum of parts of given sizes; None if it is a product that has no such boundaries."""
        dim = resolve(dim)
        if len(sizes) == 1:
            return [dim]
        factor, *rest = dim
        if rest:
            inner = size(tuple(rest))
            outer = (
                self.cut((factor,), [n // inner for n in sizes])
                if not any(n % inner for n in sizes)
                else None
            )
            return None if outer is None else [(*part, *rest) for part in outer]
        if isinstance(factor, Leaf):
            atom = factor.atom
            parts = [Atom(n, atom.fixed, atom.plain) for n in sizes]
            factor = (
                factor
                if factor.scale.free
                else replace(factor, scale=self.equations.vanish(factor.scale))
            )
            atom.bound = (Cat(tuple((Leaf(part),) for part in parts)),)
            return [resolve((replace(factor, atom=part),)) for part in parts]
        if isinstance(factor, Per):
            cuts = [self.cut(part, sizes) for part in factor.parts]
            known = [parts for parts in cuts if parts is not None]
            if len(known) < len(cuts):
                return None
            return [
                resolve((Per(factor.selector, tuple(alternatives)),))
                for alternatives in zip(*known, strict=True)
            ]
        return self._cut_sum(factor, sizes)

    def _cut_sum(self, total: Cat, sizes: Sequence[int]) -> list[Dim] | None:
        waiting, out = list(total.parts), []
        for wanted in sizes:
            taken: list[Dim] = []
            while (missing := wanted - sum(map(size, taken))) > 0:
                part = waiting.pop(0)
                if size(part) > missing:
                    pieces = self.cut(part, [missing, size(part) - missing])
                    if pieces is None:
                        return None
                    part = pieces[0]
                    waiting.insert(0, pieces[1])
                taken.append(part)
            out.append(joined([resolve(part) for part in taken]))
        return out


def _bounds(total: Cat) -> list[int]:
    bounds, end = [], 0
    for part in total.parts:
        end += size(part)
        bounds.append(end)
    return bounds
