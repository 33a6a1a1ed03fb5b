"""Tracing our own architectures finds the space that is written by hand for them."""

import pytest
import torch
from torch import nn

from tests.reference.zoo_equivalence import count_permuted, symmetry_of
from tests.tiers import tiered
from zoo.architectures import ARCHITECTURES, build_architecture, make_asymmetric
from zoo.tracing.tracer import trace
from zoo.weight_space import WeightSpace

INPUTS = {
    "mlp": (2, 4, 4),
    "cnn": (2, 8, 8),
    "resnet": (3, 8, 8),
    "siren": (2,),
    "transformer": (3, 8, 8),
    "gin": (2, 3, 3),
}
CASES = [
    *(
        ("mlp", {"hidden": [6, 5], "activation": a, "norm": n})
        for a in ("relu", "tanh", "gelu")
        for n in ("none", "layer")
    ),
    *(
        ("cnn", {"channels": [4, 6], "pool": p, "norm": n, "norm_groups": 2})
        for p in ("average", "flatten")
        for n in ("none", "layer", "group")
    ),
    *(("resnet", {"norm": n}) for n in ("batch", "layer", "none")),
    ("resnet", {"norm": "batch", "activation": "tanh"}),
    *(("siren", {"hidden": [6, 5]}),),
    *(("transformer", {"activation": a}) for a in ("gelu", "relu")),
    *(("gin", {"norm": n, "hidden": 5, "layers": 2}) for n in ("none", "layer")),
]


class Wrapped(nn.Module):
    """An architecture as a module: statistics are buffers, dots in names are spelled `__`."""

    def __init__(self, architecture, params, statistics):
        super().__init__()
        self.architecture = architecture
        for name, tensor in params.items():
            if name in statistics:
                self.register_buffer(name.replace(".", "__"), tensor)
            else:
                self.register_parameter(name.replace(".", "__"), nn.Parameter(tensor))

    def forward(self, x):
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return self.architecture.apply(
            {name: tensors[name.replace(".", "__")] for name in self.architecture.space.tensors}, x
        )


def traced_space(architecture, shape) -> WeightSpace:
    params = architecture.init(torch.Generator().manual_seed(0))
    statistics = [name for name in params if "running_" in name]
    module = Wrapped(architecture, params, statistics)
    spelled = [name.replace(".", "__") for name in statistics]
    space = trace(
        module,
        torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)),
        statistics=spelled,
    ).space
    return WeightSpace(
        space.groups,
        {name: space.tensors[name.replace(".", "__")] for name in architecture.space.tensors},
    )


def test_every_architecture_is_here():
    assert {name for name, _ in CASES} == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "options"),
    tiered(CASES, lambda name, options: CASES.index((name, options)) % 3 != 1),
    ids=str,
)
def test_the_traced_space_is_the_one_written_by_hand(name, options):
    architecture = build_architecture(name, options, INPUTS[name], 3)
    assert symmetry_of(traced_space(architecture, INPUTS[name])) == symmetry_of(architecture.space)


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_what_sigma_asymmetry_removes_the_tracer_does_not_find(name):
    standard = build_architecture(name, {}, INPUTS[name], 3)
    architecture = make_asymmetric(standard, "sigma", {}, 0)
    space = traced_space(architecture, INPUTS[name])
    assert symmetry_of(space) == symmetry_of(architecture.space)
    assert count_permuted(space)[0] < count_permuted(standard.space)[0]
