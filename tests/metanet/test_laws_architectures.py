"""Every metanet keeps every law on every architecture; both come from their tables."""

from itertools import product

import pytest

from metanet import METANETS
from metanet.testing import LAWS
from tests.metanet.populations import NAMES, population
from tests.tiers import tiered

ON_ALL = ("batch_is_loop", "gradients_reach_every_weight", "is_as_invariant_as_declared")
"""Laws of what a layer computes, which each architecture tests in another way."""


def is_quick(model: str, name: str, law: str) -> bool:
    """Laws of the estimator run on every third architecture, in turn for each metanet.

    Learning by heart takes eighty epochs: each metanet does it on one architecture.
    """
    turn = list(METANETS).index(model) - list(NAMES).index(name)
    if law == "learns_eight_by_heart":
        return turn % len(NAMES) == 0
    return law in ON_ALL or turn % 3 == 0


@pytest.mark.parametrize(("model", "name", "law"), tiered(product(METANETS, NAMES, LAWS), is_quick))
def test_every_metanet_keeps_every_law_on_every_architecture(model, name, law):
    LAWS[law](model, population(name), {})
