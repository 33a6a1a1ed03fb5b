"""Attention along the edges of a parameter graph, in both directions, on dense arrays part by part.

For an edge from node u (read) to node v (written), with H channels x of a node, K channels e of an
edge, A heads of H / A, and y = LN(x):

    e_uv <- e_uv + relu(E e_uv + P y_v + Q y_u)
    (b, g, b', g')_uv = D e_uv                                                one number a head each
    f_v = sum over u of softmax_u(q_v k_u / sqrt(H / A) + b_uv) (v_u + g_uv (1, s_u))
    g_u = sum over v of softmax_v(q'_u k'_v / sqrt(H / A) + b'_uv) (v'_v + g'_uv (1, s'_v))
    x <- x + O (f, g)       x <- x + MLP(LN(x))

A softmax runs over all edges that enter (leave) a node, whatever tensors they come from; a node
without any receives zeros. The edge enters as a bias of the logits, and as a scale and a shift of
the values.
"""

from functools import partial, reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metanet.layers.runner import Runner


class Side(NamedTuple):
    """What nodes bring to the attention in one direction.

    Attributes:
        query: `[..., A, H / A]`, scaled.
        key: `[..., A, H / A]`.
        value: `v`, then `(1, s)`: `[..., A, 2 H / A + 1]`.
    """

    query: Tensor
    key: Tensor
    value: Tensor


class AttentionLayer(nn.Module):
    """One round of attention; see the module's formula.

    References:
        Diao and Loynd 2023, arXiv 2210.05062, section 3 (edges in attention); Kofinas et al. 2024,
        arXiv 2403.12143, section 3 and equation 6 (edges scale and shift the values). There, keys
        and queries have edge terms too, and all pairs of nodes attend to each other.
    """

    def __init__(self, width: int, edge_width: int, heads: int):
        """Build.

        Args:
            width: Channels H of nodes.
            edge_width: Channels K of edges.
            heads: Heads A, a divisor of H.

        Raises:
            ValueError: If A is not a divisor of H.
        """
        super().__init__()
        if width % heads:
            raise ValueError(
                f"expected heads a divisor of width, got width {width} and {heads} heads"
            )
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 2 * edge_width + 8 * width)
        self.edge = nn.Linear(edge_width, edge_width, bias=False)
        self.to_heads = nn.Linear(edge_width, 4 * heads, bias=False)
        self.out = nn.Linear(4 * width + 2 * heads, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden, self.hidden_out = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def projections(self, x: Float[Tensor, "*nodes H"]) -> tuple[Tensor, Tensor, Side, Side]:
        """What nodes bring to written and read ends `[..., K]`, and to attention both ways."""
        width, edge_width = x.shape[-1], self.edge.in_features
        written, read, forward, backward = self.project(self.norm(x)).split(
            [edge_width, edge_width, 4 * width, 4 * width], dim=-1
        )
        return written, read, self._side(forward), self._side(backward)

    def _side(self, values: Tensor) -> Side:
        query, key, value, scaled = values.unflatten(-1, (4, self.heads, -1)).unbind(-3)
        with_one = F.pad(scaled, (1, 0), value=1.0)
        return Side(
            query=query * query.shape[-1] ** -0.5,
            key=key,
            value=torch.cat([value, with_one], dim=-1),
        )

    def update(
        self,
        x: Float[Tensor, "*nodes H"],
        forward: Float[Tensor, "*nodes A D"],
        backward: Float[Tensor, "*nodes A D"],
    ) -> Float[Tensor, "*nodes H"]:
        """New features of the nodes from what they attended to."""
        x = x + self.out(torch.cat([forward.flatten(-2), backward.flatten(-2)], dim=-1))
        return x + self.hidden_out(F.gelu(self.hidden(self.hidden_norm(x))))


class DenseAttention(Runner):
    """Runs a `GraphNetwork` of attention layers on networks of one weight space."""

    def run_layer(
        self,
        layer: AttentionLayer,
        x: Float[Tensor, "B V H"],
        e: list[Float[Tensor, "B K _ _"]],
        last: bool,  # noqa: ARG002, nodes attend by the new edges, so that the last round needs them too
    ) -> Float[Tensor, "B V H"]:
        """One round of attention."""
        written, read, forward, backward = layer.projections(x)
        written, read = written.transpose(1, 2), read.transpose(1, 2)
        entering, leaving = self.exchange(e, partial(self._new_edges, layer, written, read))
        return layer.update(x, self._attend(forward, entering), self._attend(backward, leaving))

    def _new_edges(
        self, layer: AttentionLayer, written: Tensor, read: Tensor, place: int, e: Tensor
    ) -> tuple[Tensor, "_Edges", "_Edges"]:
        """New edges of one part, and how they look from the nodes that they write and read."""
        to, of = self.nodes_of(place)
        ends = written[:, :, to, None] + read[:, :, None, of]
        e = e + torch.relu(_mix(layer.edge, e) + ends)
        return e, *_seen_from_ends(layer, e, to, of)

    def _attend(self, side: Side, inboxes: list[list["_Edges"]]) -> Float[Tensor, "B V A D"]:
        """What every node receives from its edges."""
        of_nodes = Side(*(values.transpose(1, 2) for values in side))
        received = self.collect(
            inboxes,
            lambda nodes, edges: _attended(of_nodes, of_nodes.query[:, :, nodes], edges),
            of_nodes.value,
        )
        return received.transpose(1, 2)


class _Edges(NamedTuple):
    """Edges of one part, seen from one end: nodes at the other, bias and scale `[B, A, n, m]`."""

    others: slice
    bias: Tensor
    scale: Tensor


def _seen_from_ends(
    layer: AttentionLayer, e: Tensor, written: slice, read: slice
) -> tuple[_Edges, _Edges]:
    """Edges `[B, K, W, R]` as written nodes see them, and as read nodes do."""
    per_head = _mix(layer.to_heads, e).unflatten(1, (4, -1))
    bias, scale, back_bias, back_scale = per_head.unbind(1)
    return _Edges(read, bias, scale), _Edges(written, back_bias.mT, back_scale.mT)


def _attended(side: Side, query: Tensor, edges: list[_Edges]) -> Tensor:
    """What one node set receives, `[B, A, n, D]`: one softmax over the edges of all parts."""
    logits = [part.bias + query @ side.key[:, :, part.others].mT for part in edges]
    attention = torch.cat(logits, dim=-1).softmax(-1)
    weights = attention.split([part.bias.shape[-1] for part in edges], dim=-1)
    num_plain = query.shape[-1]
    values = []
    for part, weight in zip(edges, weights, strict=True):
        plain, scaled = side.value[:, :, part.others].tensor_split([num_plain], dim=-1)
        values.append(torch.cat([weight @ plain, (weight * part.scale) @ scaled], dim=-1))
    return reduce(torch.add, values)


def _mix(linear: nn.Linear, e: Tensor) -> Tensor:
    """A linear map of the channels of edges `[B, K, W, R]`."""
    return (linear.weight @ e.flatten(2)).unflatten(2, e.shape[2:])
