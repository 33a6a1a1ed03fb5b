"""Nodes of one graph, each as its neighborhood, for the architecture `gin` with `edges: input`."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# of a neighborhood, the node itself first; smaller ones are filled with nodes without features and
# edges
NUM_NODES = 16
_NODES_AT_ONCE = 4096


def neighborhoods(
    edges: Int64[Tensor, "2 E"], features: Float[Tensor, "X F"], count: int
) -> Float[Tensor, "{count} C V"]:
    """The neighborhoods of the first nodes of a graph.

    The first channels are features of the nodes; one marks the node that is asked for; the others
    are the rows of the adjacency matrix. Of more neighbors than fit those with the lowest numbers
    are kept: in a random numbering, a random choice.

    Args:
        edges: Both directions of every edge, without loops.
        features: Of all nodes.
        count: Number of nodes to take.

    Returns:
        `[count, F + 1 + NUM_NODES, NUM_NODES]`.
    """
    total, width = features.shape
    keys = (edges[0] * total + edges[1]).unique()
    inputs = torch.zeros(count, width + 1 + NUM_NODES, NUM_NODES)
    inputs[:, width, 0] = 1.0
    for block in torch.arange(count).split(_NODES_AT_ONCE):
        nodes, exists = _with_neighbors(block, keys, total)
        pairs = nodes[:, :, None] * total + nodes[:, None, :]
        linked = torch.isin(pairs, keys) & exists[:, :, None] & exists[:, None, :]
        inputs[block, :width] = (features[nodes] * exists[..., None]).mT
        inputs[block, width + 1 :] = linked.to(inputs.dtype)
    return inputs


def _with_neighbors(
    nodes: Int64[Tensor, " M"], keys: Int64[Tensor, " E"], total: int
) -> tuple[Int64[Tensor, "M V"], Bool[Tensor, "M V"]]:
    """Nodes, each followed by its neighbors, and whether there are so many.

    Args:
        nodes: The nodes.
        keys: `first * total + second` of each edge, in order.
        total: Nodes of the graph.

    Returns:
        Numbers of nodes, and which of them count.
    """
    start = torch.searchsorted(keys, torch.arange(total + 1) * total)
    # so that looking past the last edge is allowed
    neighbors = F.pad(keys % total, (0, NUM_NODES))
    places = start[nodes, None] + torch.arange(NUM_NODES - 1)
    exists = F.pad(places < start[nodes + 1, None], (1, 0), value=True)
    return torch.cat([nodes[:, None], neighbors[places]], dim=1), exists


def load_graph(
    dataset: str, options: Mapping[str, Any], path: str | None, generator: torch.Generator
) -> tuple[Int64[Tensor, "2 E"], Float[Tensor, "X F"], Int64[Tensor, " X"]]:
    """A graph with labelled nodes from `torch_geometric.datasets`, its nodes in random order.

    Args:
        dataset: Name of a class there, such as `Planetoid`.
        options: Its arguments but the folder.
        path: Folder that it keeps its files in; it downloads them if they are not there.
        generator: Source of the order.

    Returns:
        Both directions of every edge, without loops and repetitions; features; labels.

    Raises:
        ValueError: If there is no such class, an option does not fit, files are not there and
            cannot be had, or it has no single graph with features and one label a node.
    """
    from torch_geometric.utils import remove_self_loops, to_undirected  # takes seconds to import

    graph = _labelled_graph(dataset, options, path)
    order = torch.randperm(graph.num_nodes, generator=generator)
    edges, _ = remove_self_loops(to_undirected(order.argsort()[graph.edge_index]))
    return edges, graph.x.float()[order], graph.y.reshape(len(order), -1)[order, 0].long()


def _labelled_graph(dataset: str, options: Mapping[str, Any], path: str | None) -> Any:
    """The only graph of a data set."""
    from torch_geometric import datasets  # seconds of import that other tasks need not pay

    if dataset not in datasets.__all__:
        raise ValueError(f"task.dataset: no {dataset!r} in torch_geometric.datasets")
    kind = getattr(datasets, dataset)
    has_folder = "root" in inspect.signature(kind).parameters
    if has_folder and path is None:
        raise ValueError(f"task.path: needed for {dataset}, the folder that it keeps its files in")
    try:
        graphs = kind(**({"root": path} if has_folder else {}), **options)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"task: {dataset} of torch_geometric.datasets with options {dict(options)}: {error}"
        ) from error
    graph = graphs[0]
    labels = None if graph.x is None else graph.y
    if len(graphs) != 1 or labels is None or labels.shape[:1] != (graph.num_nodes,):
        raise ValueError(
            "task.dataset: expected one graph with features and a label for every node, "
            f"got {graphs}: {graph}"
        )
    return graph
