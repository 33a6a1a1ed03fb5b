"""Chunks that do not fit are made smaller, aloud."""

import pytest
import torch

from data_gen.training.memory import chunk_size, halve_until_it_fits


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


def test_chunks_share_the_networks_evenly():
    sizes = [chunk_size(2**20, torch.device("cpu"), rows) for rows in (1, 6, 7, 13, 100)]
    assert sizes == [1, 6, 4, 5, 6]  # 6 fit


def test_compiled_chunks_have_few_sizes_and_waste_little():
    sizes = {
        rows: chunk_size(6 * 2**20 // 35, torch.device("cpu"), rows, compiled=True)
        for rows in range(1, 500)
    }
    assert len(set(sizes.values())) <= 10
    for rows, size in sizes.items():
        lanes = -(-rows // size) * size
        assert 1 <= size <= min(rows, 36)
        assert lanes <= 1.5 * rows
