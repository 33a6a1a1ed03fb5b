"""Message passing with signs for networks of one weight space, on dense arrays as in `metanet.layers.dense`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metanet.graphs.signs import Parity, parity, parity_of_channels, signed_nodes
from metanet.graphs.topology import ParameterGraph
from metanet.layers.dense import DenseGraph, chunks, edge_messages
from metanet.layers.message_passing import Projections
from metanet.layers.signed import SignedGraphNetwork


class Messages(NamedTuple):
    """Sums over the edges of one part.

    Attributes:
        even: `[B, K, nodes, 1 + H / K]`.
        odd: `[B, K, nodes, H / K]`, None if there are none.
    """

    even: Tensor
    odd: Tensor | None


class Values(NamedTuple):
    """What all nodes bring to their edges: `Projections` of the even channels, and what the odd ones send.

    Attributes:
        written: `[B, K, V]`.
        read: `[B, K, V]`.
        forward: `[B, K, V, 1 + H / K]`.
        backward: `[B, K, V, 1 + H / K]`.
        odd_forward: `[B, K, V, H / K]`.
        odd_backward: `[B, K, V, H / K]`.
    """

    written: Tensor
    read: Tensor
    forward: Tensor
    backward: Tensor
    odd_forward: Tensor
    odd_backward: Tensor


FLIPS: dict[Parity, tuple[bool, bool]] = {
    "odd": (True, True),
    "written": (True, False),
    "read": (False, True),
}
"""Whether edges flip with the signs of the written nodes, and of the read nodes."""


class SignedDenseGraph(nn.Module):
    """Runs a `SignedGraphNetwork` on networks of one weight space."""

    signed: Tensor
    is_even: Tensor
    is_odd: Tensor

    def __init__(self, graph: ParameterGraph):
        """Prepare.

        Args:
            graph: Topology of all networks.
        """
        super().__init__()
        self.graph, self.dense = graph, DenseGraph(graph)
        self.parities: list[Parity] = [parity(graph, part) for part in graph.edges]
        even, odd = parity_of_channels(graph)
        for name, mask in {"signed": signed_nodes(graph), "is_even": even, "is_odd": odd}.items():
            self.register_buffer(name, mask, persistent=False)

    def forward(
        self,
        network: SignedGraphNetwork,
        nodes: Float[Tensor, "B V C"],
        edges: Sequence[Float[Tensor, "B _ _ _"]],
    ) -> Float[Tensor, "B"]:
        """Raw predictions.

        Args:
            network: What was learned.
            nodes: Features of nodes.
            edges: Features of edges, part by part.

        Returns:
            One number a network.
        """
        return network.even.decode(
            self.dense.means(network.finish(*self.features(network, nodes, edges)))
        )

    def features(
        self,
        network: SignedGraphNetwork,
        nodes: Float[Tensor, "B V C"],
        edges: Sequence[Float[Tensor, "B _ _ _"]],
    ) -> tuple[Float[Tensor, "B V H"], Float[Tensor, "B V H"]]:
        """Even and odd features of nodes after all layers; arguments as for `forward`."""
        x = network.even.node_encoder(
            torch.where(self.is_even, nodes, nodes.abs()), self.dense.orbit
        )
        z = network.encode_odd(torch.where(self.is_odd, nodes, 0.0), self.dense.orbit, self.signed)
        shifts = network.even.edge_encoder.shift
        e = [self._encode(network, part, kind) for kind, part in enumerate(edges)]
        for at, (layer, odd_layer) in enumerate(
            zip(network.even.layers, network.odd_layers, strict=True)
        ):
            last = at + 1 == len(network.odd_layers)
            values = Values(
                *(v.transpose(1, 2) for v in (*layer.projections(x), *odd_layer.messages(z)))
            )  # type: ignore[operator]
            sums = [
                self._messages(kind, layer.edge.weight, shifts[kind], e, values, not last)  # type: ignore[union-attr]
                for kind in range(len(e))
            ]
            even, odd = self._means(values, sums)
            all_odd = odd_layer.all_odd(z, *odd)  # type: ignore[operator]
            x = layer.update(x + odd_layer.invariant(all_odd), *even)  # type: ignore[operator]
            z = odd_layer.update(z, all_odd, x, self.signed)  # type: ignore[operator]
        return x, z

    def _encode(self, network: SignedGraphNetwork, part: Tensor, kind: int) -> Tensor:
        """Edges at the start; those that flip without a shift, which is added to what their nodes bring instead."""
        encoder = network.even.edge_encoder
        if self.parities[kind] in FLIPS:
            weight = (encoder.weight[: part.shape[-1]] * (1 + encoder.scale[kind])).T.expand(
                len(part), -1, -1
            )
            return (weight @ part.flatten(1, 2).mT).unflatten(2, part.shape[1:3])
        return encoder.dense(part if self.parities[kind] == "even" else part.abs(), kind)

    def _messages(
        self, kind: int, weight: Tensor, shift: Tensor, e: list[Tensor], values: Values, keep: bool
    ) -> tuple[Messages, Messages]:
        """Messages along one part, at its written and its read nodes; replaces its edges if they are kept."""
        part, flips = self.graph.edges[kind], FLIPS.get(self.parities[kind])
        written, read = (self.graph.node_sets[at].nodes for at in (part.written, part.read or 0))
        ends = [
            v[:, :, side]
            for v, side in zip(values, (written, read, read, written, read, written), strict=True)
        ]
        if flips is None:
            e[kind], *sums = edge_messages(e[kind], weight, Projections(*ends[:4]), keep)
            return Messages(sums[0], None), Messages(sums[1], None)
        forward = torch.cat([ends[2], ends[4] if flips[1] else ends[2][..., 1:]], dim=-1)
        backward = torch.cat([ends[3], ends[5] if flips[0] else ends[3][..., 1:]], dim=-1)
        nodes = Projections(ends[0] + shift[:, None], ends[1], forward, backward)
        e[kind], received, returned = odd_edge_messages(e[kind], weight, nodes, keep)
        return _routed(received, flips[0]), _routed(returned, flips[1])

    def _means(
        self, values: Values, sums: list[tuple[Messages, Messages]]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Means of all nodes' even messages, forward and backward, and of their odd ones."""
        means: list[tuple[Tensor, Tensor]] = []
        for end, count in enumerate((self.dense.num_received, self.dense.num_sent)):
            even, odd = ([[] for _ in self.graph.node_sets] for _ in range(2))
            for part, own in zip(self.graph.edges, sums, strict=True):
                at = part.written if end == 0 else part.read or 0
                even[at].append(own[end].even)
                odd[at] += [] if own[end].odd is None else [own[end].odd]
            means.append(
                (
                    self.dense.mean(values.forward, even, count),
                    self.dense.mean(values.odd_forward, odd, count),
                )
            )
        (even_forward, odd_forward), (even_backward, odd_backward) = means
        return (even_forward, even_backward), (odd_forward, odd_backward)


def _routed(messages: Messages, odd: bool) -> Messages:
    """Messages at nodes with whose signs the edges flip, or else all of them as even ones."""
    if odd or messages.odd is None:
        return messages
    return Messages(
        torch.cat([messages.even[..., :1], messages.even[..., 1:] + messages.odd], dim=-1), None
    )


def odd_edge_messages(
    e: Float[Tensor, "B K W R"], weight: Float[Tensor, "K K"], ends: Projections, keep: bool
) -> tuple[Float[Tensor, "B K W R"], Messages, Messages]:
    """Messages along edges of one part that may flip, summed at both ends.

        a+, a- = relu(+-E e + written + read)    even: (a+ + a-) / 2 @ forward    odd: (a+ - a-) / 2 @ forward

    Args:
        e: Edge features `[B, K, W, R]`.
        weight: E.
        ends: What both ends bring; of the `1 + 2 H / K` values that they send, the last `H / K` go
            with `a+ - a-`.
        keep: Whether new edge features are wanted.

    Returns:
        New edge features `e + (a+ - a-) / 2` (the old ones if they are not wanted), sums at the
        written and at the read end.
    """
    e, *rest = e.contiguous(), *(value.to(e).contiguous() for value in (weight, *ends))
    new, *sums = _OddEdgeMessages.apply(e, *rest, keep)  # type: ignore[misc]
    width = (ends.forward.shape[-1] + 1) // 2
    received, returned = (Messages(own[..., :width], own[..., width:]) for own in sums)
    return new if keep else e, received, returned


class _OddEdgeMessages(torch.autograd.Function):
    """Works network by network and keeps its inputs alone, as `metanet.layers.dense.edge_messages` does."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        *ends, keep = rest
        ctx.save_for_backward(e, weight, *ends)
        ctx.set_materialize_grads(False)
        width = (ends[2].shape[-1] + 1) // 2
        new = torch.empty_like(e) if keep else None
        received, returned = torch.empty_like(ends[3]), torch.empty_like(ends[2])
        for part in chunks(e):
            own, written, read, forward, backward = (values[part] for values in (e, *ends))
            plus, minus = _pair(own, weight, written, read)
            both, difference = (plus + minus).div_(2), plus.sub_(minus).div_(2)
            if new is not None:
                torch.add(own, difference, out=new[part])
            received[part] = torch.cat(
                [both @ forward[..., :width], difference @ forward[..., width:]], dim=-1
            )
            returned[part] = torch.cat(
                [both.mT @ backward[..., :width], difference.mT @ backward[..., width:]], dim=-1
            )
        return new, received, returned

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        e, weight, *ends = ctx.saved_tensors
        kept = gradients[0]
        received, returned = (
            torch.zeros_like(v) if g is None else g
            for g, v in zip(gradients[1:], (ends[3], ends[2]), strict=True)
        )
        width = (ends[2].shape[-1] + 1) // 2
        of_e, of_weight, of_ends = (
            torch.empty_like(e),
            torch.zeros_like(weight),
            [torch.empty_like(end) for end in ends],
        )
        for part in chunks(e):
            own, written, read, forward, backward, to_w, to_r = (
                values[part] for values in (e, *ends, received, returned)
            )
            plus, minus = _pair(own, weight, written, read)
            of_both, of_difference = (
                torch.cat([to_w[..., side], backward[..., side]], dim=-1)
                @ torch.cat([forward[..., side], to_r[..., side]], dim=-1).mT
                for side in (slice(None, width), slice(width, None))
            )
            if kept is not None:
                of_difference.add_(kept[part])
            up = torch.ops.aten.threshold_backward(of_both + of_difference, plus, 0.0).div_(2)
            down = torch.ops.aten.threshold_backward(of_both.sub_(of_difference), minus, 0.0).div_(
                2
            )
            both, difference = (plus + minus).div_(2), plus.sub_(minus).div_(2)
            for at, values, to in (
                (2, (both.mT, difference.mT), to_w),
                (3, (both, difference), to_r),
            ):
                sides = (values[0] @ to[..., :width], values[1] @ to[..., width:])
                of_ends[at][part] = torch.cat(sides, dim=-1)
            flat = (up - down).flatten(2)
            of_weight += torch.bmm(flat, own.flatten(2).mT).sum(0)
            torch.bmm(weight.T.expand(len(own), -1, -1), flat, out=of_e[part].flatten(2))
            total = up.add_(down)
            torch.sum(total, 3, out=of_ends[0][part])
            torch.sum(total, 2, out=of_ends[1][part])
        return of_e if kept is None else of_e.add_(kept), of_weight, *of_ends, None


def _pair(e: Tensor, weight: Tensor, written: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """`relu(+-E e + written + read)`."""
    odd = torch.bmm(weight.expand(len(e), -1, -1), e.flatten(2)).view_as(e)
    even = written[..., None] + read[..., None, :]
    return (even + odd).relu_(), even.sub_(odd).relu_()
