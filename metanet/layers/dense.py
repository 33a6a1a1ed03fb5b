"""Message passing for networks of one weight space: edges are dense arrays `[B, W, R, H]`, and nothing is gathered.

Edges are what takes time and memory. `edge_messages` goes through them network by network, so that a network's edges stay in a
core's cache, and keeps only its inputs for the backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metanet.layers.message_passing import GraphNetwork, MessageLayer, Projections
from metanet.topology import ParameterGraph

CHUNK_FLOATS = 2**17
"""Edge channels of a chunk: half a megabyte of float32, so that the few arrays at work fit a core's second-level cache."""


class DenseGraph(nn.Module):
    """Runs a `GraphNetwork` on networks of one weight space; equals `metanet.layers.sparse.run` on their graphs."""

    orbit: Tensor
    members: Tensor
    num_received: Tensor
    num_sent: Tensor

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        super().__init__()
        self.graph = graph
        members = torch.nn.functional.one_hot(graph.node_set, len(graph.node_sets)).T.to(torch.get_default_dtype())
        sent, received = (end.bincount(minlength=len(graph.orbit)).clamp(min=1)[:, None] for end in graph.edge_index)
        self.register_buffer("orbit", graph.orbit, persistent=False)
        for name, counts in {"members": members, "num_received": received, "num_sent": sent}.items():
            self.register_buffer(name, counts.to(members), persistent=False)

    def forward(
        self, network: GraphNetwork, nodes: Float[Tensor, "B V C"], edges: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> Float[Tensor, "B"]:
        """Raw predictions.

        Args:
            network: What was learned.
            nodes: Features of nodes.
            edges: Features of edges, part by part.

        Returns:
            One number a network.
        """
        x = network.node_encoder(nodes, self.orbit)
        e: list[Tensor | None] = [network.edge_encoder.of_kind(part, kind) for kind, part in enumerate(edges)]
        for at, layer in enumerate(network.layers):
            x = self._layer(layer, x, e, last=at + 1 == len(network.layers))  # type: ignore[arg-type]
        return network.decode(self.members @ network.norm(x) / self.members.sum(1, keepdim=True))

    def _layer(self, layer: MessageLayer, x: Tensor, e: list[Tensor | None], last: bool) -> Tensor:
        """New features of nodes; replaces those of edges, unless nothing reads them anymore."""
        sets, of_nodes = self.graph.node_sets, layer.projections(x)
        received, sent = ([x.new_zeros(len(x), own.size, x.shape[-1]) for own in sets] for _ in range(2))
        for at, part in enumerate(self.graph.edges):
            written, read = part.written, part.read or 0
            e[at], forward, backward = edge_messages(
                e[at], layer.edge.weight, _ends(of_nodes, sets[written].nodes, sets[read].nodes), not last
            )
            received[written] = received[written] + forward
            sent[read] = sent[read] + backward
        return layer.update(x, torch.cat(received, dim=1) / self.num_received, torch.cat(sent, dim=1) / self.num_sent)


def _ends(of_nodes: Projections, written: slice, read: slice) -> Projections:
    """What both ends bring to the edges of one part: `[B, W, H]` or `[B, R, H]`."""
    return Projections(
        of_nodes.written[:, written], of_nodes.read[:, read], of_nodes.forward[:, read], of_nodes.backward[:, written]
    )


def edge_messages(
    e: Tensor | None, weight: Float[Tensor, "H H"], ends: Projections, keep: bool
) -> tuple[Tensor | None, Float[Tensor, "B W H"], Float[Tensor, "B R H"]]:
    """Messages along the edges of one part, summed at both ends.

        a = relu(E e + written + read)      sum over R of a * forward      sum over W of a * backward

    Args:
        e: Edge features `[B, W, R, H]`.
        weight: E.
        ends: What both ends bring.
        keep: Whether new edge features are wanted.

    Returns:
        New edge features `e + a` (None if they are not wanted), sums at the written and at the read end.
    """
    results = _EdgeMessages.apply(e, weight, *ends, keep)
    return results if keep else (None, *results)  # type: ignore[return-value]


class _EdgeMessages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *ends, keep = rest
        ctx.save_for_backward(e, weight, *ends)
        ctx.set_materialize_grads(False)
        size = _chunk_size(e)
        new = torch.empty_like(e) if keep else None
        received, sent = [], []
        for chunk in range(0, len(e), size):
            part = slice(chunk, chunk + size)
            own, *(written, read, forward, backward) = (values[part] for values in (e, *ends))
            a = _activations(own, weight, written, read)
            if new is not None:
                torch.add(own, a, out=new[part])
            received.append((a * forward[:, None]).sum(2))
            sent.append(a.mul_(backward[:, :, None]).sum(1))
        sums = torch.cat(received), torch.cat(sent)
        return sums if new is None else (new, *sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        e, weight, *ends = ctx.saved_tensors
        kept, received, sent = gradients if len(gradients) == 3 else (None, *gradients)
        received = ends[0].new_zeros(ends[0].shape) if received is None else received
        sent = ends[1].new_zeros(ends[1].shape) if sent is None else sent
        size, gradient, of_weight = _chunk_size(e), torch.empty_like(e), torch.zeros_like(weight)
        of_ends: list[list[Tensor]] = [[], [], [], []]
        for chunk in range(0, len(e), size):
            part = slice(chunk, chunk + size)
            own, written, read, forward, backward, to_w, to_r = (values[part] for values in (e, *ends, received, sent))
            a = _activations(own, weight, written, read)
            delta = to_w[:, :, None] * forward[:, None]
            delta.addcmul_(to_r[:, None], backward[:, :, None])
            if kept is not None:
                delta.add_(kept[part])
            delta = torch.ops.aten.threshold_backward(delta, a, 0.0)
            flat = delta.flatten(0, 2)
            of_weight.addmm_(flat.T, own.flatten(0, 2))
            into = gradient[part].flatten(0, 2)
            if kept is None:
                torch.mm(flat, weight, out=into)
            else:
                torch.addmm(kept[part].flatten(0, 2), flat, weight, out=into)
            products = (a * to_w[:, :, None]).sum(1), a.mul_(to_r[:, None]).sum(2)
            for found, value in zip(of_ends, (delta.sum(2), delta.sum(1), *products), strict=True):
                found.append(value)
        return gradient, of_weight, *map(torch.cat, of_ends), None


def _activations(e: Tensor, weight: Tensor, written: Tensor, read: Tensor) -> Tensor:
    a = written[:, :, None] + read[:, None]
    a.flatten(0, 2).addmm_(e.flatten(0, 2), weight.T)
    return a.relu_()


def _chunk_size(e: Tensor) -> int:
    budget = CHUNK_FLOATS if e.device.type == "cpu" else 256 * CHUNK_FLOATS
    return max(1, budget // max(1, e[0].numel()))
