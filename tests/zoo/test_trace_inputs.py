"""Inputs that are no tensors are constants of the graph; modules that cannot be copied say why."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from zoo.tracing.tracer import TraceError, module_params, trace


class Chosen(nn.Module):
    """A network that inputs of every kind change."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, scaled=True, factor=2.0, offset=None, kind="relu", times=3):
        hidden = self.first(x) * factor if scaled else self.first(x)
        hidden = hidden if offset is None else hidden + offset
        return self.last(torch.tanh(hidden) if kind == "tanh" else torch.relu(hidden)) * times


X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
OFFSET = torch.tensor([0.5, -1.0, 0.3, 2.0])
INPUTS = {
    "by position": ((X, True, 2.0, None, "tanh", 2), "sign"),
    "some": ((X, False, 2.5), "positive"),
    "by name": ({"x": X, "factor": 0.5, "kind": "relu"}, "positive"),
    "in another order": ({"kind": "tanh", "x": X}, "sign"),
    "nothing by name": ({"x": X, "offset": None, "times": 1}, "positive"),
    "a tensor after constants": ((X, True, 2.0, OFFSET), None),
    "a tensor by name after constants": ({"x": X, "kind": "tanh", "offset": OFFSET}, None),
}


@pytest.mark.parametrize(("inputs", "scaling"), INPUTS.values(), ids=INPUTS)
def test_inputs_that_are_no_tensors_are_constants(inputs, scaling):
    """An offset for each neuron, which is an input, ties the neurons to their places."""
    module = Chosen()
    traced = trace(module, inputs)
    hidden = traced.space.groups.get("h1")
    assert (hidden and hidden.scaling) == scaling
    given = inputs if isinstance(inputs, dict) else dict(zip(NAMES, inputs, strict=False))
    outputs = traced.apply(module_params(traced.space, module), inputs)
    torch.testing.assert_close(outputs, module(**given))


NAMES = ("x", "scaled", "factor", "offset", "kind", "times")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "hook",
    [
        nn.utils.weight_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
        lambda layer: prune.l1_unstructured(layer, "bias", 1),
    ],
    ids=["weight norm", "pruned weight", "pruned bias"],
)
def test_hooks_of_the_old_style_are_named(hook):
    layer = nn.Linear(3, 4)
    hook(layer)
    layer(X)
    with pytest.raises(TraceError, match=r"use torch\.nn\.utils\.parametrizations, or remove"):
        trace(nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 2)), X)


def test_parametrizations_are_traced():
    layer = parametrizations.weight_norm(nn.Linear(3, 4))
    space = trace(nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 2)), X).space
    assert space.groups["h1"].permutable
