"""Networks as torch_geometric graphs: one `Data` a network, any weight spaces in one `Batch`.

    graph = parameter_graph(space)                                 # once for each space
    data = graph_data(graph, params, 3)                            # one network
    many = batch([(graph, params), (other_graph, other_params)])   # all networks of both

Fields of a graph with V nodes and E edges: `x` `[V, C]` and `edge_attr` `[E, C']` (features, zero
where a node or an edge has fewer channels), `edge_index` `[2, E]` (read, written), and the kinds
that a metanet embeds: `orbit` and `node_set` `[V]`, `edge_type` `[E]`, numbered within the weight
space.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from torch_geometric.data import Batch, Data
from torch_geometric.data.data import BaseData

from metanet.graphs.topology import (
    GraphSizes,
    ParameterGraph,
    edge_features,
    node_features,
    parameter_graph,
)

__all__ = [
    "Batch",
    "Data",
    "GraphSizes",
    "ParameterGraph",
    "batch",
    "flat_edges",
    "graph_data",
    "parameter_graph",
    "sizes_of",
]


def sizes_of(graphs: Sequence[ParameterGraph]) -> GraphSizes:
    """Sizes that hold all of some graphs.

    Args:
        graphs: At least one.

    Returns:
        The largest of each size.
    """
    return reduce(or_, (graph.sizes for graph in graphs))


def flat_edges(
    graph: ParameterGraph, params: Mapping[str, Tensor], channels: int
) -> Float[Tensor, "N E C"]:
    """Features of all edges in the order of `edge_index`.

    Args:
        graph: Topology.
        params: Tensors `[N, *shape]`.
        channels: Channels C, zeros after an edge's own.

    Returns:
        The features.
    """
    like = next(iter(params.values()))
    parts = [
        pad(part.flatten(1, 2), (0, channels - part.shape[-1]))
        for part in edge_features(graph, params)
    ]
    return torch.cat([like.new_zeros(len(like), 0, channels), *parts], dim=1)


def graph_data(
    graph: ParameterGraph, params: Mapping[str, Tensor], index: int, sizes: GraphSizes | None = None
) -> Data:
    """The graph of one network.

    Args:
        graph: Topology of its weight space.
        params: Tensors `[N, *shape]`.
        index: Which of the N networks.
        sizes: Widths of the features, the graph's own if None.

    Returns:
        The graph, on the device of the params.
    """
    one = {name: tensor[index][None] for name, tensor in params.items()}
    return _networks(graph, one, sizes or graph.sizes)[0]


def batch(
    populations: Sequence[tuple[ParameterGraph, Mapping[str, Tensor]]],
    sizes: GraphSizes | None = None,
) -> Data:
    """The graphs of networks of one or more weight spaces, side by side.

    Args:
        populations: Topologies and params, tensors `[N, *shape]` with the N of each.
        sizes: Widths of the features, the largest of these graphs if None.

    Returns:
        All networks, population after population: a `torch_geometric.data.Batch`.

    Raises:
        ValueError: If features of a graph are wider than `sizes`.
    """
    needed = sizes_of([graph for graph, _ in populations])
    sizes = sizes or needed
    if sizes.node_channels < needed.node_channels or sizes.edge_channels < needed.edge_channels:
        raise ValueError(
            f"batch: expected room for {needed.node_channels} channels of nodes "
            f"and {needed.edge_channels} of edges, "
            f"got {sizes.node_channels} and {sizes.edge_channels}"
        )
    networks: list[BaseData] = []
    for graph, params in populations:
        networks += _networks(graph, params, sizes)
    return cast(Data, Batch.from_data_list(networks))


def _networks(graph: ParameterGraph, params: Mapping[str, Tensor], sizes: GraphSizes) -> list[Data]:
    nodes = node_features(graph, params, sizes.node_channels)
    edges = flat_edges(graph, params, sizes.edge_channels)
    device = nodes.device
    topology = {
        "edge_index": graph.edge_index.to(device),
        "edge_type": graph.edge_type.to(device),
        "node_set": graph.node_set.to(device),
        "orbit": graph.orbit.to(device),
    }
    return [
        Data.from_dict({**topology, "x": x, "edge_attr": edge_attr, "num_nodes": len(x)})
        for x, edge_attr in zip(nodes, edges, strict=True)
    ]
