"""Nodes of one graph, each as its neighborhood: a small graph by itself, for the architecture `gin` with `edges: input`."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
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
    start = torch.searchsorted(keys, torch.arange(total + 1) * total)
    neighbors = torch.cat(
        [keys % total, keys.new_zeros(NUM_NODES)]
    )  # so that looking past the last edge is allowed
    found = torch.zeros(count, width + 1 + NUM_NODES, NUM_NODES)
    places = torch.arange(NUM_NODES - 1)
    for first in range(0, count, _NODES_AT_ONCE):
        own = torch.arange(first, min(first + _NODES_AT_ONCE, count))
        at = start[own, None] + places
        there = torch.cat(
            [torch.ones(len(own), 1, dtype=torch.bool), at < start[own + 1, None]], dim=1
        )
        nodes = torch.cat([own[:, None], neighbors[at]], dim=1)
        pairs = nodes[:, :, None] * total + nodes[:, None, :]
        linked = torch.isin(pairs, keys) & there[:, :, None] & there[:, None, :]
        block = found[first : first + len(own)]
        block[:, :width] = (features[nodes] * there[..., None]).mT
        block[:, width, 0] = 1.0
        block[:, width + 1 :] = linked.to(found.dtype)
    return found


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
    from torch_geometric import datasets  # seconds of import that other tasks need not pay
    from torch_geometric.utils import remove_self_loops, to_undirected

    if dataset not in datasets.__all__:
        raise ValueError(f"task.dataset: no {dataset!r} in torch_geometric.datasets")
    kind = getattr(datasets, dataset)
    known = inspect.signature(kind).parameters
    rooted = {"root": path} if "root" in known else {}
    if rooted and path is None:
        raise ValueError(f"task.path: needed for {dataset}, the folder that it keeps its files in")
    try:
        found = kind(**rooted, **options)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"task: {dataset} of torch_geometric.datasets with options {dict(options)}: {error}"
        ) from error
    graph = found[0]
    if (
        len(found) != 1
        or graph.x is None
        or graph.y is None
        or graph.y.shape[:1] != (graph.num_nodes,)
    ):
        raise ValueError(
            f"task.dataset: expected one graph with features and a label for every node, got {found}: {graph}"
        )
    order = torch.randperm(graph.num_nodes, generator=generator)
    edges, _ = remove_self_loops(to_undirected(order.argsort()[graph.edge_index]))
    return edges, graph.x.float()[order], graph.y.reshape(len(order), -1)[order, 0].long()
