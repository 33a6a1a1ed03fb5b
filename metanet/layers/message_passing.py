"""The learned parts of message passing on parameter graphs; `metanet.layers.dense` and `.sparse` run them.

For an edge from node u (read) to node v (written), with node features x and edge features e:

    a_uv = relu(E e_uv + P LN(x_v) + Q LN(x_u))                     e_uv <- e_uv + a_uv
    f_v  = mean over u of a_uv * (1 + R LN(x_u))                    messages forward, along the edges
    g_u  = mean over v of a_uv * (1 + S LN(x_v))                    messages backward, against them
    x_v  <- x_v + MLP(x_v, f_v, g_v)

Messages are conditioned on edges by products, not by a perceptron over (x_u, x_v, e_uv): one H x H map for each edge and layer
is all that grows with the number of edges.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metanet.topology import GraphSizes


class Projections(NamedTuple):
    """What the nodes bring to their edges, each `[..., V, H]`.

    Attributes:
        written: `P LN(x)`, for edges that write the node.
        read: `Q LN(x)`, for edges that read the node.
        forward: `1 + R LN(x)`, factor of messages from the node forward.
        backward: `1 + S LN(x)`, factor of messages from the node backward.
    """

    written: Tensor
    read: Tensor
    forward: Tensor
    backward: Tensor


class MessageLayer(nn.Module):
    """One round of messages; see the module's formula.

    References:
        Lim et al. 2024, arXiv 2312.04501, section 3.3 (node and edge updates); Kofinas et al. 2024, arXiv 2403.12143, equation
        4 (messages with a scale and a shift from the edge); Bresson and Laurent 2017, arXiv 1711.07553, equation 11 (gates).
    """

    def __init__(self, width: int):
        """Build.

        Args:
            width: Channels H of nodes and edges.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 4 * width)
        self.edge = nn.Linear(width, width, bias=False)
        self.first, self.first_norm = nn.Linear(3 * width, width), nn.LayerNorm(width)
        self.second = nn.Linear(width, width)

    def projections(self, x: Float[Tensor, "*nodes H"]) -> Projections:
        """What the nodes bring to their edges."""
        written, read, forward, backward = self.project(self.norm(x)).chunk(4, dim=-1)
        return Projections(written, read, 1 + forward, 1 + backward)

    def update(
        self, x: Float[Tensor, "*nodes H"], forward: Float[Tensor, "*nodes H"], backward: Float[Tensor, "*nodes H"]
    ) -> Float[Tensor, "*nodes H"]:
        """New features of the nodes from their messages."""
        hidden = self.first_norm(self.first(torch.cat([x, forward, backward], dim=-1)))
        return x + self.second(torch.relu(hidden))


class GraphNetwork(nn.Module):
    """Encoders of nodes and edges, message layers and a readout. Where the graph comes from is its runner's business.

    x_v = A n_v * (1 + s_orbit(v)) + t_orbit(v)          n: features of nodes, e likewise by the type of the edge
    out = MLP(means of LN(x) over each node set)
    """

    def __init__(self, sizes: GraphSizes, width: int, layers: int):
        """Build.

        Args:
            sizes: Of the largest graphs it will read.
            width: Channels H of nodes and edges.
            layers: Rounds of messages.
        """
        super().__init__()
        self.node_encoder = Encoder(sizes.node_channels, sizes.orbits, width)
        self.edge_encoder = Encoder(sizes.edge_channels, sizes.edge_types, width)
        self.layers = nn.ModuleList(MessageLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(sizes.node_sets * width, 2 * width)
        self.readout = nn.Linear(2 * width, 1)

    def decode(self, means: Float[Tensor, "B sets H"]) -> Float[Tensor, "B"]:
        """Raw prediction from the means of node sets, zero for sets that a graph lacks."""
        pooled = means.flatten(1)
        missing = self.hidden.in_features - pooled.shape[1]
        return self.readout(torch.relu(self.hidden(nn.functional.pad(pooled, (0, missing))))).squeeze(-1)


class Encoder(nn.Module):
    """Linear in the features, with a scale and a shift for each kind (orbit of a node, type of an edge)."""

    def __init__(self, channels: int, kinds: int, width: int):
        """Build.

        Args:
            channels: Widest features.
            kinds: Number of kinds.
            width: Channels H.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, width) / max(1, channels) ** 0.5)
        self.scale = nn.Parameter(0.1 * torch.randn(kinds, width))
        self.shift = nn.Parameter(torch.randn(kinds, width))

    def forward(self, features: Float[Tensor, "*entries C"], kind: Int64[Tensor, "*kinds"]) -> Float[Tensor, "*entries H"]:
        """Encode.

        Args:
            features: Channels of nodes or edges, at most as many as the widest.
            kind: Their kinds; broadcasts against the entries.

        Returns:
            Encoded features.
        """
        return features @ self.weight[: features.shape[-1]] * (1 + self.scale[kind]) + self.shift[kind]

    def of_kind(self, features: Float[Tensor, "*entries C"], kind: int) -> Float[Tensor, "*entries H"]:
        """Encode features that are all of one kind: the same, in one product."""
        weight = self.weight[: features.shape[-1]] * (1 + self.scale[kind])
        flat = torch.addmm(self.shift[kind], features.flatten(0, -2), weight)
        return flat.view(*features.shape[:-1], -1)
