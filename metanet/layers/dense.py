"""Message passing for networks of one weight space: edges are dense arrays `[B, K, W, R]`, and nothing is gathered.

Edges are what takes time and memory. `edge_messages` goes through them network by network, so that
a network's edges stay in a core's cache, and keeps only its inputs for the backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from metanet.graphs.topology import ParameterGraph
from metanet.layers.message_passing import MessageLayer, Projections
from metanet.layers.runner import Runner

CHUNK_FLOATS = 2**17
"""Edge channels of a chunk: half a megabyte of float32, so that the few arrays at work fit a core's second-level cache."""


class DenseGraph(Runner):
    """Runs a `GraphNetwork` on networks of one weight space; equals `metanet.layers.sparse.run` on their graphs."""

    num_received: Tensor
    num_sent: Tensor

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        super().__init__(graph)
        sent, received = (
            end.bincount(minlength=len(graph.orbit)).clamp(min=1)[:, None]
            for end in graph.edge_index
        )
        for name, counts in {"num_received": received, "num_sent": sent}.items():
            self.register_buffer(name, counts.to(self.members), persistent=False)

    def run_layer(
        self,
        layer: MessageLayer,
        x: Float[Tensor, "B V H"],
        e: list[Float[Tensor, "B K _ _"]],
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
            e[at], forward, backward = edge_messages(e[at], layer.edge.weight, ends, not last)
            received[written].append(forward)
            sent[read].append(backward)
        means = (
            self.mean(of_nodes.forward, *sums)
            for sums in ((received, self.num_received), (sent, self.num_sent))
        )
        return layer.update(x, *means)

    def mean(
        self,
        like: Float[Tensor, "B K V D"],
        sums: Sequence[Sequence[Tensor]],
        count: Float[Tensor, "V 1"],
    ) -> Float[Tensor, "B V K D"]:
        """Means of the messages of all nodes.

        Args:
            like: Zeros for nodes without messages are of its type.
            sums: For each node set, the sums of its messages part by part, `[B, K, nodes, D]`.
            count: Messages of each node.

        Returns:
            The means.
        """
        sets = zip(self.graph.node_sets, sums, strict=True)
        total = [
            sum(own[1:], own[0]) if own else torch.zeros_like(like[:, :, part.nodes])
            for part, own in sets
        ]
        return (torch.cat(total, dim=2) / count).transpose(1, 2)


def ends_of(of_nodes: Projections, written: slice, read: slice) -> Projections:
    """What both ends bring to the edges of one part: `[B, K, W]`, `[B, K, R]`, `[B, K, R, D]`, `[B, K, W, D]`."""
    sides = zip(of_nodes, (written, read, read, written), strict=True)
    return Projections(*(values[:, :, side] for values, side in sides))


def edge_messages(
    e: Float[Tensor, "B K W R"], weight: Float[Tensor, "K K"], ends: Projections, keep: bool
) -> tuple[Float[Tensor, "B K W R"], Float[Tensor, "B K W D"], Float[Tensor, "B K R D"]]:
    """Messages along the edges of one part, summed at both ends.

        a = relu(E e + written + read)      a @ forward, over R      a^T @ backward, over W

    Args:
        e: Edge features `[B, K, W, R]`.
        weight: E.
        ends: What both ends bring.
        keep: Whether new edge features are wanted.

    Returns:
        New edge features `e + a` (the old ones if they are not wanted), sums at the written and at
        the read end. All are of the type of `e`, which under autocast may be another than that of
        the rest.
    """
    results = _EdgeMessages.apply(
        e.contiguous(), *(value.to(e).contiguous() for value in (weight, *ends)), keep
    )
    return results if keep else (e, *results)  # type: ignore[return-value]


class _EdgeMessages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *ends, keep = rest
        ctx.save_for_backward(e, weight, *ends)
        ctx.set_materialize_grads(False)
        new = torch.empty_like(e) if keep else None
        received, sent = torch.empty_like(ends[3]), torch.empty_like(ends[2])
        for part in chunks(e):
            own, written, read, forward, backward = (values[part] for values in (e, *ends))
            a = _activations(own, weight, written, read)
            if new is not None:
                torch.add(own, a, out=new[part])
            matrices = a.flatten(0, 1)
            torch.bmm(matrices, forward.flatten(0, 1), out=received[part].flatten(0, 1))
            torch.bmm(matrices.mT, backward.flatten(0, 1), out=sent[part].flatten(0, 1))
        return (received, sent) if new is None else (new, received, sent)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        e, weight, *ends = ctx.saved_tensors
        kept, received, sent = gradients if len(gradients) == 3 else (None, *gradients)
        received = torch.zeros_like(ends[3]) if received is None else received
        sent = torch.zeros_like(ends[2]) if sent is None else sent
        # d a = received forward^T + backward sent^T, one product of two factors side by side.
        left, right = torch.cat([received, ends[3]], dim=-1), torch.cat([ends[2], sent], dim=-1)
        of_e, of_weight = torch.empty_like(e), torch.zeros_like(weight)
        of_ends = [torch.empty_like(end) for end in ends]
        for part in chunks(e):
            own, written, read, _, _, to_w, to_r = (
                values[part] for values in (e, *ends, received, sent)
            )
            a = _activations(own, weight, written, read)
            delta = torch.bmm(left[part].flatten(0, 1), right[part].flatten(0, 1).mT).view_as(a)
            if kept is not None:
                delta.add_(kept[part])
            delta = torch.ops.aten.threshold_backward(delta, a, 0.0)
            flat, back = delta.flatten(2), weight.T.expand(len(own), -1, -1)
            of_weight += torch.bmm(flat, own.flatten(2).mT).sum(0)
            if kept is None:
                torch.bmm(back, flat, out=of_e[part].flatten(2))
            else:
                torch.baddbmm(kept[part].flatten(2), back, flat, out=of_e[part].flatten(2))
            torch.sum(delta, 3, out=of_ends[0][part])
            torch.sum(delta, 2, out=of_ends[1][part])
            torch.bmm(a.flatten(0, 1).mT, to_w.flatten(0, 1), out=of_ends[2][part].flatten(0, 1))
            torch.bmm(a.flatten(0, 1), to_r.flatten(0, 1), out=of_ends[3][part].flatten(0, 1))
        return of_e, of_weight, *of_ends, None


def _activations(e: Tensor, weight: Tensor, written: Tensor, read: Tensor) -> Tensor:
    a = written[..., None] + read[..., None, :]
    a.flatten(2).baddbmm_(weight.expand(len(e), -1, -1), e.flatten(2))
    return a.relu_()


def chunks(e: Float[Tensor, "B K W R"]) -> list[slice]:
    """Networks to go through at a time, so that their edges stay in the processor's cache.

    Args:
        e: Edge features.

    Returns:
        Slices of B.
    """
    budget = CHUNK_FLOATS if e.device.type == "cpu" else 256 * CHUNK_FLOATS
    size = max(1, budget // max(1, e[0].numel()))
    return [slice(start, start + size) for start in range(0, len(e), size)]
