"""Message passing that sees widths only through means: copies of a neuron that share its outgoing weights change nothing.

A network stays the same function when every neuron of a group is copied k times and what reads the
group is divided by k. Edges carry weights times the number of neurons that they sum over
(`fan_in`), so that copies of an edge are equal. Every message is a mean over the other end, each
part of the graph by itself, so that copies together count once:

    f_v = mean over parts that write v, of: mean over u of a_uv[k] * (1, (R LN(x_u))[k])
    g_u = mean over parts that read u, of: mean over v of a_uv[k] * (1, (S LN(x_v))[k])

with a_uv as in `metanet.layers.message_passing`. Edges between node sets that share groups (heads)
average over the nodes that agree, with 1 for a. Where every node set is written and read by one
part each, as in an MLP, this is `gmn` but for the units of the weights.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.graphs.topology import Relation
from metanet.layers.dense import edge_messages, ends_of
from metanet.layers.message_passing import GraphNetwork, MessageLayer, Projections
from metanet.layers.runner import Runner
from zoo.symmetry.blocks import cut_blocks
from zoo.weight_space import WeightSpace


def fan_in(space: WeightSpace) -> dict[str, Float[Tensor, "..."]]:
    """For each entry of each tensor, the number of neurons that are summed over where it is read; positions do not count.

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
        block.view(counts[block.tensor]).mul_(torch.tensor(read).prod())
    return counts


class WidthGraph(Runner):
    """Runs a `GraphNetwork` on networks of one weight space, so that it applies to other widths too."""

    def encode(
        self, network: GraphNetwork, edges: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[Float[Tensor, "B _ _ _"]]:
        """Edges at the start; those of a relation say where a group agrees, and stay as they are."""
        encoded = super().encode(network, edges)
        parts = zip(self.graph.edges, edges, encoded, strict=True)
        return [part if isinstance(own, Relation) else code for own, part, code in parts]

    def run_layer(
        self,
        layer: MessageLayer,
        x: Float[Tensor, "B V H"],
        e: list[Float[Tensor, "B _ _ _"]],
        last: bool,
    ) -> Float[Tensor, "B V H"]:
        """One round of messages."""
        sets, of_nodes = (
            self.graph.node_sets,
            Projections(*(values.transpose(1, 2) for values in layer.projections(x))),
        )
        received: list[list[Tensor]] = [[] for _ in sets]
        sent: list[list[Tensor]] = [[] for _ in sets]
        for at, part in enumerate(self.graph.edges):
            written, read = part.written, part.read or 0
            ends = ends_of(of_nodes, sets[written].nodes, sets[read].nodes)
            if isinstance(part, Relation):
                agree = e[at][:, None, :, :, 0]
                forward, backward = agree @ ends.forward, agree.mT @ ends.backward
                over, back_over = agree.sum(3)[..., None], agree.sum(2)[..., None]
            else:
                e[at], forward, backward = edge_messages(e[at], layer.edge.weight, ends, not last)
                over, back_over = part.shape[1], part.shape[0]
            received[written].append(forward / over)
            sent[read].append(backward / back_over)
        return layer.update(
            x, *(self._means(of_nodes.forward, parts) for parts in (received, sent))
        )

    def _means(self, like: Tensor, parts: list[list[Tensor]]) -> Tensor:
        """Means over parts of what all nodes receive, `[B, V, K, D]`; zero for nodes that no part has."""
        sets = zip(self.graph.node_sets, parts, strict=True)
        means = [
            sum(own[1:], own[0]) / len(own) if own else torch.zeros_like(like[:, :, part.nodes])
            for part, own in sets
        ]
        return torch.cat(means, dim=2).transpose(1, 2)
