"""Every metanet keeps every law on every architecture; both come from their tables."""

from itertools import product

import pytest

from metanet import METANETS
from metanet.testing import LAWS
from tests.metanet.populations import NAMES, population
from tests.tiers import tiered


def is_quick(model: str, name: str, law: str) -> bool:
    """Learning by heart takes eighty epochs: each metanet does it on one architecture in turn."""
    turn = list(METANETS).index(model) % len(NAMES)
    return law != "learns_eight_by_heart" or list(NAMES)[turn] == name


@pytest.mark.parametrize(("model", "name", "law"), tiered(product(METANETS, NAMES, LAWS), is_quick))
def test_every_metanet_keeps_every_law_on_every_architecture(model, name, law):
    LAWS[law](model, population(name), {})
