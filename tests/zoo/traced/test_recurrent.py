"""Recurrent layers of traced modules run for many networks at once, against torch's own layers."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from tests.tiers import tiered
from zoo import trace
from zoo.params import stack

COUNT = 3
X = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Reader(nn.Module):
    """Reads a sequence by layers, or step by step by cells."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = nn.LazyLinear(2)

    def forward(self, x):
        if isinstance(self.layer, nn.RNNCellBase):
            state = None
            for step in range(x.shape[1]):
                state = self.layer(x[:, step], state)
            last = state[0] if isinstance(state, tuple) else state
        else:
            outputs, state = self.layer(x)
            ends = state if isinstance(state, tuple) else (state,)
            last = torch.cat([outputs[:, -1], *(end.transpose(0, 1).flatten(1) for end in ends)], 1)
        return self.head(last)


LAYERS = {
    "lstm": lambda: nn.LSTM(3, 4, batch_first=True),
    "lstm of two layers": lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True),
    "lstm both ways without bias": lambda: nn.LSTM(
        3, 4, bias=False, bidirectional=True, batch_first=True
    ),
    "lstm with projection": lambda: nn.LSTM(3, 4, proj_size=2, batch_first=True),
    "gru of two layers": lambda: nn.GRU(3, 4, num_layers=2, batch_first=True),
    "gru both ways": lambda: nn.GRU(3, 4, bidirectional=True, batch_first=True),
    "rnn": lambda: nn.RNN(3, 4, batch_first=True),
    "rnn with relu": lambda: nn.RNN(3, 4, nonlinearity="relu", bias=False, batch_first=True),
    "lstm cell": lambda: nn.LSTMCell(3, 4),
    "gru cell": lambda: nn.GRUCell(3, 4),
    "rnn cell": lambda: nn.RNNCell(3, 4),
    "rnn cell with relu, without bias": lambda: nn.RNNCell(3, 4, bias=False, nonlinearity="relu"),
}


def build(name):
    module = Reader(LAYERS[name]()).double()
    module(X)  # the lazy head learns its width
    return module


QUICK = (
    "lstm of two layers",
    "lstm with projection",
    "gru both ways",
    "rnn with relu",
    "lstm cell",
    "rnn cell with relu, without bias",
)


@pytest.mark.parametrize("name", tiered([(name,) for name in LAYERS], lambda name: name in QUICK))
def test_outputs_and_gradients_of_many_are_those_of_each(name):
    modules = [build(name) for _ in range(COUNT)]
    traced = trace(modules[0], X)
    networks = [dict(module.named_parameters()) for module in modules]
    params = stack([{n: p.detach() for n, p in network.items()} for network in networks])
    outputs = vmap(traced.apply, in_dims=(0, None))(params, X)
    gradients = vmap(grad(lambda p: traced.apply(p, X).square().sum()))(params)
    for i, (module, network) in enumerate(zip(modules, networks, strict=True)):
        expected = functional_call(module, network, X)
        torch.testing.assert_close(outputs[i], expected, rtol=0, atol=1e-12)
        expected.square().sum().backward()
        for tensor, parameter in network.items():
            torch.testing.assert_close(gradients[tensor][i], parameter.grad, rtol=0, atol=1e-10)
