"""Files of other libraries are read as these libraries read them."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.images import image_folder, needs_images
from zoo.importers.passive import Passive
from zoo.importers.table import read_checkpoint

STATE = {
    "weight": torch.randn(3, 4),
    "bias": torch.randn(3),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "transposed": torch.randn(4, 3).T,
    "part": torch.randn(10)[2:7:2],
    "parameter": nn.Parameter(torch.randn(2)),
}


def saved(value, tmp_path, **options):
    path = tmp_path / "model.pt"
    torch.save(value, path, **options)
    return path


def check_equal(checkpoint, state):
    assert list(checkpoint.tensors) == list(state)
    for name, array in checkpoint.tensors.items():
        expected = state[name].detach()
        if expected.is_floating_point():
            expected = expected.float()
        assert array.flags.c_contiguous
        assert array.dtype.isnative
        assert array.shape == tuple(expected.shape)
        assert np.array_equal(array, expected.numpy(), equal_nan=True)


@pytest.mark.parametrize("is_zip", [True, False], ids=["archive", "before 1.6"])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_file_of_torch_is_what_torch_reads(kind, is_zip, tmp_path):
    path = saved(kind(STATE), tmp_path, _use_new_zipfile_serialization=is_zip)
    check_equal(read_checkpoint(path), torch.load(path, weights_only=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_become_float32_and_it_is_said(dtype, tmp_path):
    state = {"weight": torch.randn(5, 3).to(dtype)}
    checkpoint = read_checkpoint(saved(state, tmp_path))
    check_equal(checkpoint, state)
    assert checkpoint.notes == (f"{str(dtype).removeprefix('torch.')} became float32",)


@pytest.mark.parametrize("seed", range(4))
def test_random_modules(seed, tmp_path):
    torch.manual_seed(seed)
    widths = torch.randint(1, 9, (4,)).tolist()
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    module = nn.Sequential(*layers, nn.BatchNorm1d(widths[-1]), nn.LSTM(widths[-1], 2))
    path = saved(module.state_dict(), tmp_path)
    check_equal(read_checkpoint(path), torch.load(path, weights_only=True))


def test_tied_tensors_share_their_memory(tmp_path):
    weight = torch.randn(3)
    tensors = read_checkpoint(saved({"a": weight, "b": weight}, tmp_path)).tensors
    assert np.shares_memory(tensors["a"], tensors["b"])


WRAPPED = {
    "state_dict": (lambda s: {"state_dict": s, "epoch": 3}, ["took the key 'state_dict'"]),
    "nested": (
        lambda s: {"model": {"state_dict": s}},
        ["took the key 'model'", "took the key 'state_dict'"],
    ),
    "a tuple": (lambda s: (s, 5), ["took the first of 2 values"]),
    "data parallel": (
        lambda s: {f"module.{name}": tensor for name, tensor in s.items()},
        ["removed the prefix 'module.'"],
    ),
    "compiled": (
        lambda s: {f"module._orig_mod.{name}": tensor for name, tensor in s.items()},
        ["removed the prefix 'module.'", "removed the prefix '_orig_mod.'"],
    ),
    "Lightning": (
        lambda s: {"pytorch-lightning_version": "2.1", "state_dict": s},
        ["took the key 'state_dict'", "a checkpoint of Lightning '2.1'"],
    ),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_are_recognized_and_said(case, tmp_path):
    wrap, notes = WRAPPED[case]
    state = {"weight": torch.randn(2, 2), "bias": torch.randn(2)}
    checkpoint = read_checkpoint(saved(wrap(state), tmp_path))
    check_equal(checkpoint, state)
    assert list(checkpoint.notes) == notes


def test_the_rest_is_a_record(tmp_path):
    state = {"weight": torch.randn(2)}
    value = {"state_dict": state, "epoch": 3, "lr": 0.5, "config": {"act": ["relu"]}}
    assert read_checkpoint(saved(value, tmp_path)).record == {
        "epoch": 3,
        "lr": 0.5,
        "config": {"act": ["relu"]},
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_safetensors(dtype, tmp_path):
    state = {"b": torch.randn(3, 2).to(dtype), "a": torch.randn(4).to(dtype)}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path, metadata={"lr": "0.1"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.record == {"lr": "0.1"}
    theirs = safetensors.torch.load_file(path)
    for name, tensor in theirs.items():
        assert np.array_equal(checkpoint.tensors[name], tensor.float().numpy())
    assert checkpoint.tensors.keys() == theirs.keys()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_archives_of_numpy(write, tmp_path):
    arrays = {
        "w": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3).astype(">i4"),
    }
    write(tmp_path / "model.npz", **arrays)
    checkpoint = read_checkpoint(tmp_path / "model.npz")
    for name, array in arrays.items():
        assert np.array_equal(checkpoint.tensors[name], array)
        assert checkpoint.tensors[name].dtype.isnative


class Config:
    """A class of somebody's own, as checkpoints hold them."""

    def __init__(self, width):
        self.width = width
        self.tree = {"a": [1, 2.5, None, True]}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_stay_records_in_every_protocol(protocol, tmp_path):
    value = {"state_dict": {"w": torch.ones(2)}, "config": Config(8), "n": np.float64(1.5)}
    path = saved(value, tmp_path, pickle_protocol=protocol)
    checkpoint = read_checkpoint(path)
    config = checkpoint.record["config"]
    assert isinstance(config, Passive)
    assert config.name.endswith("Config")
    assert config.state == {"width": 8, "tree": {"a": [1, 2.5, None, True]}}
    assert checkpoint.record["n"] == 1.5
    assert any("nothing was imported or called for" in note for note in checkpoint.notes)


@needs_images("inr-orbit")
def test_a_published_orbit_is_read_as_torch_reads_it():
    paths = sorted(image_folder("inr-orbit").rglob("*.pth"))[:8]
    assert paths
    for path in paths:
        theirs = torch.load(path, weights_only=True, map_location="cpu")
        tensors = {name: t for name, t in theirs.items() if isinstance(t, torch.Tensor)}
        check_equal(read_checkpoint(path), tensors)
