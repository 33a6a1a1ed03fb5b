"""Modules and options that cannot be made asymmetric are named."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import zoo
from tests.zoo.asymmetric_modules.modules import Perceptron, randn


class TwoAxes(nn.Module):
    """One activation for neurons on the last axis and for channels on the first one."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(6, 6), nn.ReLU(), nn.Conv1d(6, 6, 1)

    def forward(self, x):
        hidden = self.act(self.first(x))
        return self.act(self.second(hidden[..., None].expand(-1, -1, 3)))


class Functional(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.inner, self.relu, self.act = nn.Linear(4, 4), nn.ReLU(), act

    def forward(self, x):
        return self.act(self.relu(self.inner(x)))


class Unused(Functional):
    def __init__(self):
        super().__init__(nn.ReLU())

    def forward(self, x):
        return self.relu(self.inner(x))


class Swish(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()


@pytest.mark.parametrize(
    "act",
    [F.relu, torch.relu_, F.gelu, torch.tanh, F.silu, F.leaky_relu, F.elu, F.softplus, F.mish],
)
def test_activations_that_are_function_calls_are_refused(act):
    module = nn.Sequential(Functional(act))
    with pytest.raises(ValueError, match=r"cannot be replaced: \w+ in 0 \(Functional\)"):
        zoo.asymmetric(module, "sigma", example_inputs=randn(2, 4))


def test_an_activation_of_your_own_is_named():
    module, x = Functional(Swish()), randn(2, 4)
    assert type(zoo.asymmetric(module, "sigma", example_inputs=x).act) is Swish
    twin = zoo.asymmetric(
        module, "sigma", example_inputs={"x": x}, activations=["act"], skip=["relu"]
    )
    assert repr(twin.act) == "FiGLU(4, axis=-1)"
    assert type(twin.relu) is nn.ReLU


REFUSED = {
    "kind": (
        Perceptron(6, 5, 3),
        {"kind": "wide"},
        r"unknown asymmetry 'wide'; known are \['sigma', 'syre', 'w'\]",
    ),
    "option": (
        Perceptron(6, 5, 3),
        {"nfix": 3},
        r"unknown option 'nfix' of asymmetry 'w'; options are \['n_fix', 'kappa'",
    ),
    "type": (Perceptron(6, 5, 3), {"skip": "head"}, r"option 'skip' of asymmetry 'w'"),
    "skip": (
        Perceptron(6, 5, 3),
        {"skip": ["head"]},
        r"skip: \['head'\] fit nothing; names are \['layers', 'layers.0'",
    ),
    "mapping": (
        Perceptron(6, 5, 3),
        {"n_fix": {"layers.0": 2}},
        r"n_fix: no value for \['layers.1.weight'\]; start .* '\*'",
    ),
    "typo": (
        Perceptron(6, 5, 3),
        {"kappa": {"*": 1, "layer": 2}},
        r"kappa: \['layer'\] fit nothing; names are \['layers.0.weight'",
    ),
    "frozen": (
        Perceptron(6, 5, 3),
        {"n_fix": 6},
        r"'layers.0.weight': n_fix=6 would freeze all 6 entries of a row",
    ),
    "depthwise": (
        nn.Conv2d(64, 64, 3, groups=64),
        {},
        r"'weight': 64 rows cannot be distinct with n_fix=2 of 9 entries",
    ),
    "kappa": (Perceptron(6, 5, 3), {"kappa": -1.0}, r"expected kappa >= 0, got -1.0"),
    "nothing": (nn.ReLU(), {}, r"no weights to fix entries of; looked for nn.Linear, nn.Conv1d"),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 3)),
        {},
        r"'0' \(ConvTranspose2d\) is not among .* skip=\['0'\]",
    ),
    "recurrent": (
        nn.Sequential(nn.LSTM(3, 4)),
        {},
        r"recurrent layers cannot be made asymmetric: '0' \(LSTM\)",
    ),
    "computed": (
        nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 5))),
        {},
        r"'0.weight' is not a parameter but computed",
    ),
    "beside": (
        *(nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 5), "bias")), {}),
        r"that have a parametrization .* cannot get another: \['0.weight'\]",
    ),
    "lazy": (nn.Sequential(nn.LazyLinear(3)), {}, r"\['0.weight', '0.bias'\] have no values yet"),
    "twice": (
        zoo.asymmetric(Perceptron(6, 5, 3)),
        {},
        r"'layers.0.weight' is not a parameter but computed",
    ),
    "syre twice": (
        zoo.asymmetric(Perceptron(6, 5, 3)),
        {"kind": "syre"},
        r"have a parametrization .* cannot get another: \['layers.0.bias'",
    ),
    "syre std": (Perceptron(6, 5, 3), {"kind": "syre", "std": 0.0}, r"expected std > 0, got 0.0"),
    "sigma std": (
        Perceptron(6, 5, 3),
        {"kind": "sigma", "std": -1.0},
        r"expected std > 0, got -1.0",
    ),
    "no examples": (Perceptron(6, 5, 3), {"kind": "sigma"}, r"example_inputs are needed"),
    "no activation": (
        *(nn.Linear(6, 5), {"kind": "sigma", "example_inputs": randn(2, 6)}),
        r"no activation modules found; looked for nn.ReLU, .* transformers.activations",
    ),
    "two axes": (
        TwoAxes(),
        {"kind": "sigma", "example_inputs": randn(2, 6)},
        r"cannot tell which axis of \[\[2, 6\], \[2, 6, 3\]\] holds the neurons of 'act'",
    ),
    "axis": (
        nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (2, 2, 2)), nn.ReLU()),
        {"kind": "sigma", "example_inputs": randn(2, 6)},
        r"cannot tell which axis of \[\[2, 2, 2, 2\]\] holds the neurons of '2'",
    ),
    "not called": (
        *(Unused(), {"kind": "sigma", "example_inputs": randn(2, 4)}),
        r"activation 'act' is not called with these example inputs; "
        r"leave it out with skip=\['act'\]",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_what_is_wrong(reason):
    module, options, message = REFUSED[reason]
    with pytest.raises(ValueError, match=message):
        zoo.asymmetric(module, **options)
