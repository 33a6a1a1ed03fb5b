"""The graph transformer: dense arrays equal gathering; it knows declared symmetry."""

from functools import partial

import pytest
import torch

from metanet.contract import InputSpec, seeded
from metanet.graphs import pyg as graphs
from metanet.models.graph_transformer import GraphTransformer
from tests.metanet.spaces import COUNT, SPACES, assert_same_function, generator, networks
from tests.reference import metanet_attention

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def metanet(space, params, free=None):
    with seeded(0):
        module = (
            GraphTransformer(InputSpec(space, free or {}), width=8, heads=2, layers=2, edge_width=3)
            .double()
            .eval()
        )
    # Moves the norms off the identity, so that the twin has to have them in the right places.
    with torch.no_grad():
        for at, weight in enumerate(module.parameters()):
            weight.data += 0.1 * torch.randn(
                weight.shape, generator=generator(at), dtype=torch.float64
            )
    module.calibrate([params])
    return module


@pytest.mark.parametrize("name", SPACES)
def test_the_dense_path_equals_gathering_and_scattering(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    batch = graphs.batch([(module.graph, module.norm(params))])
    ours, theirs = module(params), metanet_attention.run(module.network, batch)
    assert_same_function(module, ours, theirs)


def test_weights_of_a_node_sum_to_one_over_all_tensors_that_write_it():
    space = SPACES["random 0"]
    params = networks(space)
    module = metanet(space, params)
    layer, (read, written) = module.network.layers[0], module.graph.edge_index
    # Values that do not differ between nodes come back as they are, where there is an edge at all.
    with torch.no_grad():
        width = layer.out.out_features
        start = layer.project.out_features - 8 * width
        for side in (0, 4 * width):
            layer.project.weight[start + side + 2 * width : start + side + 3 * width] = 0
            layer.project.bias[start + side + 2 * width : start + side + 3 * width] = (
                torch.arange(float(width)) + side
            )
    x = torch.randn(
        COUNT, len(module.graph.orbit), width, generator=generator(), dtype=torch.float64
    )
    received = []
    layer.update = lambda x, forward, backward: received.extend([forward, backward]) or x
    edges = graphs.edge_features(module.graph, module.norm(params))
    module.dense.run_layer(layer, x, module.dense.encode(module.network, edges), last=True)
    for got, nodes, side in zip(received, (written, read), (0, 4 * width), strict=True):
        reached = torch.zeros(x.shape[1], dtype=torch.float64)
        reached[nodes] = 1
        expected = reached[:, None] * (torch.arange(width, dtype=torch.float64) + side)
        close(got[..., : width // 2].flatten(-2), expected.expand(COUNT, -1, -1))


def test_options_are_checked():
    with pytest.raises(ValueError, match="heads a divisor of width, got width 10 and 4 heads"):
        GraphTransformer(InputSpec(SPACES["mlp"]), width=10)
