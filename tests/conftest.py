"""What every test starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    """Modules built without a generator draw from the global state of torch.

    The same in every run and order of the tests.
    """
    torch.manual_seed(0)
