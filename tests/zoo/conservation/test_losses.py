"""Which laws a loss keeps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.zoo.conservation.networks import build, generator, kept_by, names, network
from zoo.conservation.find import find_laws
from zoo.conservation.laws import declared_laws
from zoo.tracing.tracer import module_params, trace
from zoo.weight_space import NeuronGroup, WeightSpace

EXPECTED = {
    "mlp": ["h1.balance", "h2.balance", "layers.2.weight.shift", "layers.2.bias.shift"],
    "linear mlp": ["h1.matrix", "h2.matrix", "layers.2.weight.shift", "layers.2.bias.shift"],
    "siren": ["layers.2.weight.shift", "layers.2.bias.shift"],
    "transformer": [
        *(
            "d.balance",
            "qk1.matrix",
            "v1.matrix",
            "embed.weight.shift",
            "embed.bias.shift",
            "position.weight.shift",
        ),
        *(
            "blocks.0.out.weight.shift",
            "blocks.0.out.bias.shift",
            "blocks.0.fc2.weight.shift",
            "blocks.0.fc2.bias.shift",
        ),
        *("classifier.weight.shift", "classifier.bias.shift"),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_laws_that_are_found(name):
    assert names(kept_by(name, build(name))) == EXPECTED[name]


def test_norms_keep_the_scale_of_what_stands_before_them_up_to_their_epsilon():
    name = "resnet"
    architecture = build(name)
    exact, nearly = (kept_by(name, architecture, tolerance=tol) for tol in (1e-10, 1e-2))
    scales = [(law.name, law.shape) for law in nearly if law.kind == "scale"]
    weights = [n for n, text in architecture.space.tensors.items() if "^0 <-" in text]
    # of each convolution, for each channel, and not again of all that add into a stream
    assert scales == [(f"{n}.scale", architecture.space.shapes[n][:1]) for n in weights]
    assert all(law.kind != "scale" for law in exact)


def test_all_that_adds_into_a_normed_stream_has_one_scale():
    name = "transformer"
    architecture = build(name)
    (law,) = [law for law in kept_by(name, architecture, tolerance=1e-2) if law.kind == "scale"]
    assert law.shape == ()
    assert set(law.tensors) == {
        n for n, text in architecture.space.tensors.items() if "d^0" in text
    }


class Normed(nn.Module):
    """Norms without an epsilon: what stands before them may be scaled."""

    def __init__(self, norm: str):
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(2, 4, 3), nn.Linear(4, 6), nn.Linear(6, 3)
        self.norm = (
            nn.BatchNorm2d(4, eps=1e-30)
            if norm == "batch"
            else nn.GroupNorm(2 if norm == "group" else 1, 4, eps=0.0)
        )
        self.layer_norm = nn.LayerNorm(6, eps=0.0)

    def forward(self, x):
        h = F.gelu(self.norm(self.conv(x))).mean((2, 3))
        return self.out(F.gelu(self.layer_norm(self.fc(h))))


@pytest.mark.parametrize(("norm", "shape"), [("batch", (2, 2)), ("group", (2,)), ("layer", ())])
def test_scales_before_norms_without_epsilon_are_found_exactly(norm, shape):
    module, source = Normed(norm).double(), generator(0)
    x, y = torch.randn(7, 2, 5, 5, generator=source, dtype=torch.float64), torch.arange(7) % 3
    groups = {
        "x": NeuronGroup(2),
        "g": NeuronGroup(2),
        "c": NeuronGroup(2),
        "h": NeuronGroup(6),
        "y": NeuronGroup(3, False),
    }
    c = "(g c)"
    space = WeightSpace(
        groups,
        {
            "conv.weight": f"{c} <- x 3 3",
            "conv.bias": c,
            "fc.weight": f"h <- {c}",
            "fc.bias": "h",
            "out.weight": "y <- h",
            "out.bias": "y",
            "norm.weight": c,
            "norm.bias": c,
            "layer_norm.weight": "h",
            "layer_norm.bias": "h",
        },
    )
    params = {name: tensor.detach() for name, tensor in module.named_parameters()}
    call = lambda p: F.cross_entropy(torch.func.functional_call(module, p, x), y)  # noqa: E731
    laws = {law.name: law for law in find_laws(space, call, params, tolerance=1e-9)}
    shapes = {name: law.shape for name, law in laws.items() if law.kind == "scale"}
    assert shapes == {"conv.weight.scale": shape, "fc.weight.scale": ()}
    assert ("conv.bias" in laws["conv.weight.scale"].tensors) == (
        norm != "batch"
    )  # batch norm takes the bias away
    assert laws["fc.weight.scale"].tensors == ("fc.weight", "fc.bias")
    assert {"fc.weight.shift", "out.weight.shift"} <= set(laws)


def test_a_traced_module_has_laws():
    module = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(), nn.Linear(6, 5), nn.Linear(5, 2))
    x = torch.randn(8, 4, generator=generator(0))
    traced = trace(module, x)
    (relu, linear) = declared_laws(traced.space)
    assert (relu.shape, linear.shape) == ((6,), (5,))
    params = module_params(traced.space, module)
    laws = find_laws(traced.space, lambda p: traced.apply(p, x.double()).square().mean(), params)
    assert names(laws) == [relu.name, linear.name.replace("balance", "matrix")]


def test_a_law_needs_a_gradient_to_be_found():
    architecture = build("mlp")
    assert (
        find_laws(
            architecture.space, lambda p: 0 * p["layers.0.bias"].sum(), network(architecture, 0)
        )
        == ()
    )
