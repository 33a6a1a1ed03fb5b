"""Every metanet keeps every law on every architecture; both come from their tables."""

import pytest

from metanet import METANETS
from metanet.testing import LAWS
from tests.metanet.populations import NAMES, population


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", METANETS)
def test_every_metanet_keeps_every_law_on_every_architecture(model, name, law):
    LAWS[law](model, population(name), {})
