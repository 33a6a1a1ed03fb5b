"""Every metanet keeps every law on every architecture; both come from their tables."""

from itertools import product

import pytest

from metanet import METANETS
from metanet.testing import LAWS
from tests.metanet.populations import NAMES, population
from tests.tiers import tiered

TURNS = {
    "batch_is_loop": 0,
    "is_as_invariant_as_declared": 1,
    "gradients_reach_every_weight": 2,
}
"""Laws of what a layer computes, at any weights: every architecture has one of them, metanets take
turns."""
ESTIMATOR = ("is_deterministic", "survives_saving", "refuses_another_space")
"""Laws of what stands around a module: they run on one architecture for each metanet."""


def is_quick(model: str, name: str, law: str) -> bool:
    """What one architecture alone can break; `test_laws.py` holds each metanet to every law.

    Learning by heart takes eighty epochs, so it is done there only.
    """
    turn = list(METANETS).index(model) - list(NAMES).index(name)
    if law in TURNS:
        return turn % 3 == TURNS[law]
    return law in ESTIMATOR and turn % len(NAMES) == 0


@pytest.mark.parametrize(("model", "name", "law"), tiered(product(METANETS, NAMES, LAWS), is_quick))
def test_every_metanet_keeps_every_law_on_every_architecture(model, name, law):
    LAWS[law](model, population(name), {"epochs": 1} if law in TURNS else {})
