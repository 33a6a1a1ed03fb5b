"""Axes that are identified: which gives both its name, what stays apart; products with zeros."""

import itertools

import pytest

from zoo.tracing.algebra import Algebra
from zoo.tracing.dims import Atom, Leaf, Per, leaves, resolve
from zoo.tracing.layers import _contraction
from zoo.tracing.values import Context, Value

KINDS = {
    "fixed neurons": {"fixed": True},
    "fixed positions": {"fixed": True, "plain": True},
    "free": {},
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("older", KINDS)
@pytest.mark.parametrize("younger", KINDS)
def test_fixed_comes_before_free_neurons_before_positions_and_the_oldest_first(
    older, younger, turned
):
    atoms = [Atom(4, **KINDS[older]), Atom(4, **KINDS[younger])]
    expected = atoms[list(KINDS).index(younger) < list(KINDS).index(older)]
    one, other = atoms[::-1] if turned else atoms
    algebra = Algebra()
    dim = algebra.same((Leaf(one),), (Leaf(other),), algebra.equations.equal)
    assert [leaf.atom for leaf in leaves(dim)] == [expected]


def test_free_positions_are_as_old_as_they_are():
    for first, second in itertools.permutations([{"plain": True}, {}]):
        older, younger = Atom(4, **first), Atom(4, **second)
        algebra = Algebra()
        dim = algebra.same((Leaf(younger),), (Leaf(older),), algebra.equations.equal)
        assert [leaf.atom for leaf in leaves(dim)] == [older]


@pytest.mark.parametrize("is_same", [True, False])
def test_alternatives_are_identified_one_by_one_only_along_the_same_axis(is_same):
    """Gates of one reshape are compared gate by gate; of two, all are neurons of one kind."""
    first, second = (Atom(2, fixed=True, plain=True) for _ in range(2))
    parts = [(Leaf(Atom(4)),) for _ in range(4)]
    algebra = Algebra()
    one = (Per(first, tuple(parts[:2])),)
    other = (Per(first if is_same else second, tuple(parts[2:])),)
    algebra.same(one, other, algebra.equations.equal)
    kinds = [next(iter(leaves(resolve(part)))).atom for part in parts]
    assert kinds[0] is kinds[2]
    assert kinds[1] is kinds[3]
    assert (kinds[0] is kinds[1]) != is_same


@pytest.mark.parametrize("zeros", list(itertools.product([False, True], repeat=2)))
def test_a_product_with_zeros_is_zero(zeros):
    shapes = ((2, 3), (3, 4))
    one, other = (
        Value(tuple((Leaf(Atom(n)),) for n in shape), zero)
        for shape, zero in zip(shapes, zeros, strict=True)
    )
    assert _contraction(Context(Algebra()), one, other).zero == any(zeros)
