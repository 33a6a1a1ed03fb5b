"""Architectures that a manifest describes cost nothing before they fit their space."""

import json
import tracemalloc

import pytest
import torch

from zoo.architectures import build_architecture
from zoo.store.bounds import checked_space, rebuild
from zoo.store.mapped import StoreError
from zoo.weight_space import NeuronGroup, WeightSpace


def mlp_space() -> WeightSpace:
    return build_architecture("mlp", {"hidden": [4]}, (3,), 2).space


TOO_LARGE = {
    "width": ({"name": "resnet", "width": 1e9}, "is not that of architecture|cannot be built"),
    "channels": (
        {"name": "resnet", "channels": [10**9, 10**9, 10**9]},
        "is not that of architecture|cannot be built",
    ),
    "infinite width": (
        {"name": "resnet", "width": 1e308},
        "is not that of architecture|cannot be built",
    ),
    "depth": (
        {"name": "resnet", "depth": 6 * 10**8 + 2},
        "'depth': 600000002 is more than the 4 tensors",
    ),
    "layers": ({"name": "gin", "layers": 10**9}, "'layers': 1000000000 is more than the 4 tensors"),
    "list": ({"name": "mlp", "hidden": [1] * 10**5}, "'hidden': 100000 is more than the 4 tensors"),
    "graph": ({"name": "gin"}, "a graph of 1000000 nodes; expected at most 4096"),
    "no name": ({}, "unknown architecture 'None'"),
    "name of another type": ({"name": ["mlp"]}, "unknown architecture"),
    "unknown": ({"name": "os.system"}, "unknown architecture 'os.system'; known are"),
    "unknown option": ({"name": "mlp", "path": "/etc/passwd"}, "unknown option 'path'"),
    "division by zero": ({"name": "transformer", "heads": 0}, "cannot be built"),
    "another width": ({"name": "mlp", "hidden": [5]}, "is not that of architecture"),
}


def described(architecture: dict, input_shape: tuple[int, ...]) -> dict:
    return {"architecture": architecture, "input_shape": input_shape, "num_classes": 2}


@pytest.mark.parametrize(("architecture", "part"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_architectures_larger_than_their_space_cost_nothing(architecture, part):
    tracemalloc.start()
    with pytest.raises(StoreError, match=part):
        rebuild(described(architecture, (1, 1000, 1000)), mlp_space(), {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**8


def test_an_architecture_is_built_without_memory_before_it_is_built(monkeypatch):
    """Statistics of a batch norm are allocated when a resnet is built, whatever the stored space
    says.
    """
    ones = torch.ones
    sizes = []
    monkeypatch.setattr(
        torch, "ones", lambda *a, **k: (sizes.append(ones(0).device.type), ones(*a, **k))[1]
    )
    with pytest.raises(StoreError, match="is not that of architecture"):
        rebuild(described({"name": "resnet", "channels": [3, 3, 3]}, (1, 8, 8)), mlp_space(), {})
    assert set(sizes) == {"meta"}


def test_groups_that_are_no_axis_are_refused():
    space = WeightSpace({"x": NeuronGroup(3), "z": NeuronGroup(10**15)}, {"w": "x"})
    with pytest.raises(ValueError, match="'z' is no axis"):
        checked_space(json.loads(space.to_json()))
