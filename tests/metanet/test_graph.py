"""Parameter graphs hold every parameter once, at the nodes that its pattern names."""

import pytest
import torch

from metanet.graphs.parts import Relation
from metanet.graphs.pyg import GraphSizes, batch, flat_edges, graph_data, parameter_graph
from metanet.graphs.topology import node_features
from tests.reference.metanet_graph import entries, neurons
from tests.zoo.instances import instance
from zoo.architectures import ARCHITECTURES
from zoo.pattern import Label
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace

FIXED, FREE = (lambda size: NeuronGroup(size, permutable=False)), NeuronGroup
HAND = WeightSpace(
    {"x": FIXED(2), "h": FREE(3), "g": FREE(2), "y": FIXED(2)},
    {
        "in": "h <- x 2",
        "bias": "h",
        "position": "4 h",
        "first": "x -> h",
        "pair": "(g h)",
        "cross": "g h",
        "scalar": "",
        "out": "y <- (h 2)",
    },
)


def networks(space, count=2):
    return random_params(space, torch.Generator().manual_seed(0), batch=(count,))


def as_entries(graph, params):
    """What a graph says of one network, in the words of the slow twin."""
    values, one = {}, {name: tensor[:1] for name, tensor in params.items()}
    edges, nodes = (
        flat_edges(graph, one, graph.sizes.edge_channels)[0],
        node_features(graph, one)[0],
    )
    labels = {}
    for part in graph.node_sets:
        for place in range(part.size):
            axis = tuple(Label(group) for group in part.axis)
            labels[part.start + place] = tuple(neurons(graph.space, axis, place))
    for at, ((read, written), kind) in enumerate(
        zip(graph.edge_index.T.tolist(), graph.edge_type.tolist(), strict=True)
    ):
        part = graph.edges[kind]
        if not isinstance(part, Relation):
            values[part.block.tensor, labels[written], labels[read]] = edges[
                at, : part.shape[-1]
            ].tolist()
    for part in graph.vectors:
        for node in range(*graph.node_sets[part.node_set].nodes.indices(len(labels))):
            values[part.block.tensor, labels[node], ()] = nodes[node, part.channels].tolist()
    return values


SPACES = {name: instance(name).space for name in ARCHITECTURES if name != "resnet"}


@pytest.mark.parametrize("name", SPACES)
def test_graphs_of_architectures_equal_their_twins(name):
    space = SPACES[name]
    params = networks(space)
    expected = entries(space, {name: tensor[0] for name, tensor in params.items()})
    assert as_entries(parameter_graph(space), params) == expected


def test_graph_of_every_kind_of_pattern():
    graph, params = parameter_graph(HAND), networks(HAND)
    expected = entries(HAND, {name: tensor[0] for name, tensor in params.items()})
    # Two groups on axes of one side: edges from the second axis to the first.
    swapped = {
        (n, w[:1], w[1:]) if n == "cross" else (n, w, r): value
        for (n, w, r), value in expected.items()
    }
    assert as_entries(graph, params) == swapped
    assert [part.axis for part in graph.node_sets] == [
        ("x",),
        ("h",),
        ("g", "h"),
        ("g",),
        (),
        ("y",),
    ]
    assert graph.orbit.tolist() == [0, 1, *[2] * 3, *[3] * 6, *[4] * 2, 5, 6, 7]


def test_sums_have_edges_from_every_term():
    space = WeightSpace({"a": FREE(2), "b": FREE(3), "y": FIXED(1)}, {"dense": "y <- ((a 2) + b)"})
    graph = parameter_graph(space)
    tensor = torch.arange(7.0)[None, None]
    assert [part.shape for part in graph.edges] == [(1, 2, 2), (1, 3, 1)]
    flat = flat_edges(graph, {"dense": tensor}, 2)[0].tolist()
    assert flat == [[0, 1], [2, 3], [4, 0], [5, 0], [6, 0]]


def test_node_axes_that_share_a_group_are_joined():
    space = WeightSpace(
        {"head": FREE(2), "q": FREE(2), "v": FREE(1)}, {"a": "(head q)", "b": "(head v)"}
    )
    (relation,) = parameter_graph(space).edges
    assert relation.view(networks(space))[1, :, :, 0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_residual_streams_and_heads_share_nodes():
    axes = [part.axis for part in parameter_graph(instance("transformer").space).node_sets]
    assert axes.count(("d",)) == 1
    assert ("head1", "qk1") in axes
    assert ("head1",) not in axes


def test_topology_is_made_once():
    space = SPACES["mlp"]
    assert parameter_graph(space) is parameter_graph(WeightSpace.from_json(space.to_json()))


def test_graphs_of_single_networks_are_those_of_the_batch():
    parts = [(parameter_graph(SPACES[name]), networks(SPACES[name])) for name in ("mlp", "cnn")]
    together = batch(parts).to_data_list()
    for at, (graph, params) in enumerate(parts):
        for i in range(2):
            one = graph_data(graph, params, i, GraphSizes(1, 9, 0, 0, 0))
            for name in ("x", "edge_attr", "edge_index", "orbit"):
                torch.testing.assert_close(one[name], together[2 * at + i][name])


def test_widths_that_are_too_small_are_refused():
    graph = parameter_graph(SPACES["cnn"])
    with pytest.raises(
        ValueError, match="room for 1 channels of nodes and 9 of edges, got 1 and 4"
    ):
        batch([(graph, networks(SPACES["cnn"]))], GraphSizes(1, 4, 5, 4, 7))
