"""What every test starts from."""

import pytest
import torch
from hypothesis import settings

from tests.cost import pytest_addoption, pytest_configure

__all__ = ["pytest_addoption", "pytest_configure"]

# The same examples in every run, and no clock: the machine may be busy. `--hypothesis-profile=deep`
# is what `make test-deep` asks for.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=30)
settings.register_profile("deep", deadline=None, derandomize=True, max_examples=300)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    """Modules built without a generator draw from the global state of torch.

    The same in every run and order of the tests.
    """
    torch.manual_seed(0)
