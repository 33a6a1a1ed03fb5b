"""Chunks that do not fit are made smaller, aloud."""

import pytest
import torch

from data_gen.chunking import halve_until_it_fits


def test_chunks_are_halved_until_they_fit():
    tried = []

    def run(size):
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("no")
        return f"trained {size}"

    with pytest.warns(UserWarning, match="networks in lock step do not fit .* trying"):
        assert halve_until_it_fits(run, 13) == "trained 2"
    assert tried == [13, 7, 4, 2]


def test_one_network_that_does_not_fit_is_an_error():
    def run(size):
        raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="trying 1"):
        halve_until_it_fits(run, 2)
