"""Each pair of architectures."""

import pytest

from tests.zoo.traced.pairs import OPTIONS, pair


@pytest.fixture(params=OPTIONS)
def both(request):
    return pair(request.param)
