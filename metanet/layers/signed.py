"""Message passing that knows the signs of nodes: a `GraphNetwork` with odd channels beside it.

A node has H even channels x, which no sign changes, and H odd channels z, which flip with its sign
s_v. So does an odd edge with those of both its nodes, `e_vu -> s_v s_u e_vu`; its activations come
in pairs, which a flip exchanges:

    a+_vu, a-_vu = relu(+-E e_vu + t + P LN(x_v) + Q LN(x_u))       t: shift of the type of the edge
    f_v  = mean over u of (a+ + a-)[k] / 2 * (1, (R LN(x_u))[k])         even; g_u likewise
    f'_v = mean over u of (a+ - a-)[k] / 2 * (R' RMS(z_u))[k]            odd;  g'_u likewise
    e_vu <- e_vu + (a+ - a-) / 2

Edges that flip with the sign of one of their nodes alone send `(a+ - a-) / 2` times odd channels
from that node, which makes even messages, added to the others, and times even channels towards it,
which makes odd ones. Even edges are as in `metanet.layers.message_passing` and send even messages
only. With `o = (RMS(z), f', g')`, all odd,

    x <- x + B |A o|, then as in `MessageLayer`
    z <- z + (C o) * (G LN(x)) + [s_v = 1] D LN(x)

where A, B, C have no offset, and the last term is for nodes without signs only.
"""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from metanet.graphs.topology import GraphSizes
from metanet.layers.message_passing import Encoder, GraphNetwork, MessageLayer

SMALL = 1e-2
"""Mean square below which odd channels fade: vanishing neurons lose their sign smoothly."""


class OddLayer(nn.Module):
    """The odd half of a round of messages; see the module's formula.

    References:
        Kalogeropoulos et al. 2024, arXiv 2406.10685, section 4 (sign-equivariant nets
        `x * phi(|x|)`, messages as products).
    """

    def __init__(self, width: int, edge_width: int):
        """Build.

        Args:
            width: Channels H of nodes.
            edge_width: Channels K of edges, a divisor of H.
        """
        super().__init__()
        self.edge_width = edge_width
        self.norm = nn.RMSNorm(width, eps=SMALL)
        self.send = nn.Linear(width, 2 * width, bias=False)
        self.invariant = Invariant(3 * width, width)
        self.mix = nn.Linear(3 * width, width, bias=False)
        self.even_norm, self.gate = nn.LayerNorm(width), nn.Linear(width, width)
        self.plain = nn.Linear(width, width)

    def messages(
        self, z: Float[Tensor, "*nodes H"]
    ) -> tuple[Float[Tensor, "*nodes K D"], Float[Tensor, "*nodes K D"]]:
        """What the nodes send forward and backward, `D = H / K`."""
        forward, backward = self.send(self.norm(z)).chunk(2, dim=-1)
        heads = (self.edge_width, -1)
        return forward.unflatten(-1, heads), backward.unflatten(-1, heads)

    def all_odd(
        self,
        z: Float[Tensor, "*nodes H"],
        forward: Float[Tensor, "*nodes K D"],
        backward: Float[Tensor, "*nodes K D"],
    ) -> Float[Tensor, "*nodes _"]:
        """The odd features of nodes and the odd messages that they got."""
        return torch.cat([self.norm(z), forward.flatten(-2), backward.flatten(-2)], dim=-1)

    def update(
        self,
        z: Float[Tensor, "*nodes H"],
        odd: Float[Tensor, "*nodes _"],
        x: Float[Tensor, "*nodes H"],
        signed: Bool[Tensor, " V"],
    ) -> Float[Tensor, "*nodes H"]:
        """New odd features.

        Args:
            z: The old ones.
            odd: What `all_odd` gave.
            x: New even features.
            signed: Which nodes have a sign.

        Returns:
            The new ones.
        """
        x = self.even_norm(x)
        return z + self.mix(odd) * self.gate(x) + torch.where(signed[:, None], 0.0, self.plain(x))


class Invariant(nn.Module):
    """Even features of odd ones, `B |A o|`."""

    def __init__(self, inputs: int, width: int):
        """Build.

        Args:
            inputs: Channels of `o`.
            width: Channels of the result.
        """
        super().__init__()
        self.first = nn.Linear(inputs, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)

    def forward(self, odd: Float[Tensor, "*nodes _"]) -> Float[Tensor, "*nodes H"]:
        """Map."""
        return self.second(self.first(odd).abs())


class SignedGraphNetwork(nn.Module):
    """A `GraphNetwork` with odd channels. Where the graph comes from is its runner's business.

    z_v = A' n_v * (1 + s_orbit(v)) + [no sign] t_orbit(v)         n: odd features of nodes
    """

    def __init__(
        self,
        sizes: GraphSizes,
        width: int,
        edge_width: int,
        layers: int,
        num_outputs: int | None = None,
    ):
        """Build.

        Args:
            sizes: Of the largest graphs it will read.
            width: Channels H of nodes, even and odd ones each.
            edge_width: Channels K of edges, a divisor of H.
            layers: Rounds of messages.
            num_outputs: See `Head`.
        """
        super().__init__()
        self.even = GraphNetwork(sizes, width, edge_width, layers, num_outputs=num_outputs)
        self.odd_encoder = Encoder(sizes.node_channels, sizes.orbits, width)
        self.odd_layers = nn.ModuleList(OddLayer(width, edge_width) for _ in range(layers))
        self.odd_norm, self.invariant = nn.RMSNorm(width, eps=SMALL), Invariant(width, width)

    def rounds(self) -> Iterator[tuple[MessageLayer, OddLayer]]:
        """The even and the odd half of each round of messages."""
        for layer, odd_layer in zip(self.even.layers, self.odd_layers, strict=True):
            yield cast(MessageLayer, layer), cast(OddLayer, odd_layer)

    def encode_odd(
        self,
        features: Float[Tensor, "*nodes C"],
        orbit: Int64[Tensor, " V"],
        signed: Bool[Tensor, " V"],
    ) -> Float[Tensor, "*nodes H"]:
        """Odd features of nodes at the start.

        Args:
            features: Odd features, zero where there are none.
            orbit: Orbits of the nodes.
            signed: Which nodes have a sign, and hence no shift.

        Returns:
            Encoded features.
        """
        shift = torch.where(signed[:, None], 0.0, self.odd_encoder.shift[orbit])
        return self.odd_encoder.scaled(features, orbit) + shift

    def finish(
        self, x: Float[Tensor, "*nodes H"], z: Float[Tensor, "*nodes H"]
    ) -> Float[Tensor, "*nodes H"]:
        """Even features of nodes that the readout averages."""
        return self.even.norm(x + self.invariant(self.odd_norm(z)))
