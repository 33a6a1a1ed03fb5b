"""Nodes of a stochastic block model, each as its neighborhood: which block is it in?"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_gen.tasks.graphs import neighborhoods

NUM_BLOCKS = 4
NUM_FEATURES = 8
WITHIN, ACROSS = 8.0, 4.0  # expected neighbors in a node's own block, and in all others together
_CENTER_STD = 0.7
_MAX_COUNT = 5000  # the graph is drawn as all pairs of nodes


def make_sbm(
    count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "X C V"], Int64[Tensor, " X"]]:
    """Draw a graph, features of its nodes, and the neighborhood of every node.

    Features are those of a node's block, drawn once for each block, plus unit noise: alone they say
    little, together with those of the neighbors much. An input is a graph by itself, for the
    architecture `gin` with `edges: input`: its first channels are features of the nodes (the last
    of them marks the node that is asked for), the others the rows of the adjacency matrix. A node
    with more neighbors than fit keeps some, drawn at random.

    Args:
        count: Nodes `X` of the graph; blocks are as equal as can be.
        generator: Source of randomness.

    Returns:
        Neighborhoods `[X, C, V]` as `data_gen.tasks.graphs.neighborhoods` makes them, and the block
        of each node, in random order.

    Raises:
        ValueError: If there are too few or too many nodes.

    References:
        Holland, Laskey and Leinhardt 1983, "Stochastic blockmodels: first steps", Social Networks
        5; Zeng et al. 2021, arXiv 2201.07858 (nodes classified by their neighborhoods).
    """
    if not 4 * WITHIN <= count / NUM_BLOCKS <= _MAX_COUNT / NUM_BLOCKS:
        least = round(4 * WITHIN * NUM_BLOCKS)
        raise ValueError(
            f"sbm: expected {least} to {_MAX_COUNT} nodes in train_size and test_size together, "
            f"found {count}"
        )
    sizes = [count // NUM_BLOCKS + (block < count % NUM_BLOCKS) for block in range(NUM_BLOCKS)]
    edges = _draw_edges(sizes, generator)
    y = torch.arange(NUM_BLOCKS).repeat_interleave(torch.tensor(sizes))
    # In random order "the first neighbors" is a random choice, and the first nodes are a random
    # training part.
    order = torch.randperm(count, generator=generator)
    edges, y = order.argsort()[edges], y[order]
    centers = _CENTER_STD * torch.randn(NUM_BLOCKS, NUM_FEATURES, generator=generator)
    features = centers[y] + torch.randn(count, NUM_FEATURES, generator=generator)
    return neighborhoods(edges, features, count), y


def _draw_edges(sizes: list[int], generator: torch.Generator) -> Int64[Tensor, "2 E"]:
    """Edges of a graph with blocks of these sizes."""
    from torch_geometric.utils import stochastic_blockmodel_graph  # takes seconds to import

    within = WITHIN * NUM_BLOCKS / sum(sizes)
    across = ACROSS * NUM_BLOCKS / (NUM_BLOCKS - 1) / sum(sizes)
    odds = across + (within - across) * torch.eye(NUM_BLOCKS)
    # The library draws from the global state, which is lent the caller's generator and gets its own
    # back.
    with torch.random.fork_rng(devices=()):
        torch.set_rng_state(generator.get_state())
        edges = stochastic_blockmodel_graph(sizes, odds)
        generator.set_state(torch.get_rng_state())
    return edges
