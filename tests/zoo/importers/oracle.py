"""What torch itself reads of a file, to compare with."""

import numpy as np
import torch


def as_arrays(state):
    """Tensors as arrays; floats as float32, by torch."""
    floats = {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
    return {name: value.detach().numpy() for name, value in floats.items()}


def check_same(tensors, expected):
    """The same names in the same order, types, shapes and bits; each contiguous and native."""
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        got = tensors[name]
        assert isinstance(got, np.ndarray), name
        assert (got.dtype, got.shape) == (array.dtype, array.shape), name
        assert got.flags.c_contiguous
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, array, err_msg=name)


def loaded(path):
    """By torch, weights only."""
    return as_arrays(torch.load(path, map_location="cpu", weights_only=True))
