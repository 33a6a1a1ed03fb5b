"""Which of two identified axes gives both its name."""

import itertools

import pytest

from zoo.tracing.algebra import Algebra
from zoo.tracing.dims import Atom, Leaf, leaves

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
