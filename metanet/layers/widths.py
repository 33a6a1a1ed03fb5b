"""Message passing that sees widths only through means: copies of a neuron change nothing.

The copies share the outgoing weights of the neuron. A network stays the same function when every
neuron of a group is copied k times and what reads the group is divided by k. Edges carry weights
times the number of neurons that they sum over (`fan_in`), so that copies of an edge are equal.
Every message is a mean over the other end, each part of the graph by itself, so that copies
together count once:

    f_v = mean over parts that write v, of: mean over u of a_uv[k] * (1, (R LN(x_u))[k])
    g_u = mean over parts that read u, of: mean over v of a_uv[k] * (1, (S LN(x_v))[k])

with a_uv as in `metanet.layers.message_passing`. Edges between node sets that share groups (heads)
average over the nodes that agree, with 1 for a. Where every node set is written and read by one
part each, as in an MLP, this is `gmn` but for the units of the weights.
"""

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.graphs.parts import EdgePart, Relation
from metanet.graphs.topology import ParameterGraph
from metanet.layers.dense import MessageRunner
from metanet.layers.edge_kernel import edge_messages
from metanet.layers.message_passing import GraphNetwork, Projections
from zoo.symmetry.blocks import cut_blocks
from zoo.weight_space import WeightSpace


def fan_in(space: WeightSpace) -> dict[str, Float[Tensor, "..."]]:
    """For each entry of each tensor, the number of neurons that are summed over where it is read.

    Positions do not count.

    Args:
        space: Weight space.

    Returns:
        Tensors `[*shape]`.

    >>> from zoo.weight_space import NeuronGroup
    >>> groups = {"c": NeuronGroup(2), "y": NeuronGroup(1, permutable=False)}
    >>> fan_in(WeightSpace(groups, {"weight": "y <- (c 3)", "bias": "y"}))
    {'weight': tensor([[2., 2., 2., 2., 2., 2.]]), 'bias': tensor([1.])}
    """
    counts = {name: torch.ones(shape) for name, shape in space.shapes.items()}
    for block in cut_blocks(space):
        powers = space.pattern(block.tensor).powers
        read = [
            dim.size
            for dim, axis in zip(block.dims, block.axes, strict=True)
            if dim.group and powers[axis] < 0
        ]
        block.view(counts[block.tensor]).mul_(prod(read))
    return counts


class WidthGraph(MessageRunner):
    """Runs a `GraphNetwork` on networks of one weight space, so that it fits other widths too.

    Messages are averaged over the edges of each part, then over the parts that a node has.
    """

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        num_written, num_read = torch.zeros(2, len(graph.orbit))
        for part in graph.edges:
            num_written[graph.node_sets[part.written].nodes] += 1
            num_read[graph.node_sets[part.read].nodes] += 1
        super().__init__(graph, num_received=num_written, num_sent=num_read)

    def encode(
        self, network: GraphNetwork, edges: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[Float[Tensor, "B _ _ _"]]:
        """Edges at the start; those of a relation say where a group agrees and stay as they are."""
        encoded = super().encode(network, edges)
        return [
            given if isinstance(part, Relation) else code
            for part, given, code in zip(self.graph.edges, edges, encoded, strict=True)
        ]

    def messages(
        self,
        part: EdgePart | Relation,
        e: Float[Tensor, "B _ _ _"],
        weight: Float[Tensor, "K K"],
        ends: Projections,
        keep: bool,
    ) -> tuple[Float[Tensor, "B _ _ _"], Float[Tensor, "B K W D"], Float[Tensor, "B K R D"]]:
        """Messages along one part of the edges, averaged at both ends."""
        if isinstance(part, Relation):
            agree = e[:, None, :, :, 0]
            received = agree @ ends.forward / agree.sum(3)[..., None]
            sent = agree.mT @ ends.backward / agree.sum(2)[..., None]
            return e, received, sent
        e, received, sent = edge_messages(e, weight, ends, keep)
        written, read = part.shape[:2]
        return e, received / read, sent / written
