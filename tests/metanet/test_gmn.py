"""The graph metanet: dense and torch_geometric paths are equal; it knows declared symmetry."""

from functools import partial

import pytest
import torch

from metanet.contract import InputSpec, seeded
from metanet.graphs import pyg as graphs
from metanet.graphs.topology import parameter_graph
from metanet.layers import autograd, dense, edge_kernel, sparse
from metanet.layers.message_passing import GraphNetwork, Projections
from metanet.models.gmn import GraphMetanet
from tests.metanet.spaces import COUNT, SPACES, assert_same_function, generator, networks
from zoo.architectures import ARCHITECTURES

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def metanet(space, params, **options):
    with seeded(0):
        module = (
            GraphMetanet(InputSpec(space), **{"width": 8, "edge_width": 4, "layers": 2, **options})
            .double()
            .eval()
        )
    module.calibrate([module.features(params)])
    return module


@pytest.mark.parametrize("name", SPACES)
def test_the_dense_path_equals_the_torch_geometric_path(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    features = module.features(params)
    batch = graphs.batch([(module.graph, module.norm(features))])
    ours, theirs = module(features), sparse.run(module.network, batch)
    assert_same_function(module, ours, theirs)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("chunk", [1, 2**17])
def test_edge_messages_have_the_right_gradient(keep, chunk, monkeypatch):
    monkeypatch.setattr(autograd, "CHUNK_FLOATS", chunk)
    shapes = [
        (3, 2, 4, 3),
        (2, 2),
        (3, 2, 4),
        (3, 2, 3),
        (3, 2, 3, 2),
        (3, 2, 4, 2),
    ]  # 3 networks, K = 2, W = 4, R = 3
    inputs = [
        torch.randn(s, generator=generator(at), dtype=torch.float64, requires_grad=True)
        for at, s in enumerate(shapes)
    ]

    def messages(e, weight, *ends):
        return edge_kernel.edge_messages(e, weight, Projections(*ends), keep)[0 if keep else 1 :]

    assert len(messages(*inputs)) == 2 + keep
    assert torch.autograd.gradcheck(messages, inputs)


def test_networks_of_different_architectures_share_a_batch():
    parts = [
        (parameter_graph(SPACES[name]), networks(SPACES[name], seed=at))
        for at, name in enumerate(ARCHITECTURES)
    ]
    sizes = graphs.sizes_of([graph for graph, _ in parts])
    with seeded(0):
        network = GraphNetwork(sizes, width=8, edge_width=4, layers=2).double()
    together = sparse.run(network, graphs.batch(parts))
    close(together, torch.cat([sparse.run(network, graphs.batch([part], sizes)) for part in parts]))
    alone = [
        sparse.run(network, graphs.graph_data(graph, params, at, sizes))
        for graph, params in parts
        for at in range(COUNT)
    ]
    close(together, torch.cat(alone))
    for at, (graph, params) in enumerate(parts):
        alone = dense.DenseGraph(graph).double()
        nodes, edges = graphs.node_features(graph, params), graphs.edge_features(graph, params)
        close(together[COUNT * at : COUNT * (at + 1)], alone(network, nodes, edges))


def test_autocast_changes_little():
    params = {name: tensor.float() for name, tensor in networks(SPACES["cnn"], 16).items()}
    module = metanet(SPACES["cnn"], networks(SPACES["cnn"], 16)).float()
    exact = module(module.features(params))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(module.features(params))
    rounded.float().square().sum().backward()
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded).abs().max() < 0.1 * exact.std()


def test_options_are_checked():
    with pytest.raises(
        ValueError, match="edge_width a divisor of width, got width 12 and edge_width 8"
    ):
        GraphMetanet(InputSpec(SPACES["mlp"]), width=12)
