"""Slow twin of `metanet.layers.widths`: one list of edges, gathered and scattered type by type."""

import torch
from torch_geometric.utils import scatter

from metanet.graphs.parts import Relation


def run(network, graph, data):
    """Raw predictions for a `torch_geometric` batch of graphs of one weight space."""
    x = network.node_encoder(data.x, data.orbit)
    e = network.edge_encoder(data.edge_attr, data.edge_type)
    joined = torch.ones(len(e), dtype=torch.bool)
    of_relation = torch.zeros(len(e), dtype=torch.bool)
    for kind, part in enumerate(graph.edges):
        if isinstance(part, Relation):
            of_relation |= data.edge_type == kind
    joined[of_relation] = data.edge_attr[of_relation, 0] == 1
    for layer in network.layers:
        x, e = message_layer(layer, x, e, data, of_relation, joined)
    num_sets = int(data.node_set.max()) + 1
    means = scatter(
        network.norm(x),
        data.batch * num_sets + data.node_set,
        dim_size=data.num_graphs * num_sets,
        reduce="mean",
    )
    return network.decode(means.unflatten(0, (data.num_graphs, num_sets)))


def message_layer(layer, x, e, data, of_relation, joined):
    nodes, (read, written) = layer.projections(x), data.edge_index
    a = torch.relu(layer.edge(e) + nodes.written[written] + nodes.read[read])
    gate = torch.where(of_relation[:, None], 1, a)[..., None]
    forward = mean_of_means(gate * nodes.forward[read], written, data.edge_type, joined, len(x))
    backward = mean_of_means(gate * nodes.backward[written], read, data.edge_type, joined, len(x))
    return layer.update(x, forward, backward), e + a


def mean_of_means(messages, end, kind, joined, count):
    """The mean over types of edges that a node has, of the mean over its edges of that type."""
    total, parts = (
        torch.zeros(count, *messages.shape[1:], dtype=messages.dtype),
        torch.zeros(count, dtype=messages.dtype),
    )
    for one in range(int(kind.max()) + 1 if len(kind) else 0):
        chosen = joined & (kind == one)
        total = total + scatter(messages[chosen], end[chosen], dim_size=count, reduce="mean")
        parts[end[chosen].unique()] += 1
    return total / parts.clamp(min=1)[:, None, None]
