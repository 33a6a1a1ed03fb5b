"""The learned parts of message passing on parameter graphs; `.dense` and `.sparse` run them.

For an edge from node u (read) to node v (written), with H channels x of a node and K channels e of
an edge, K heads of H / K:

    a_uv = relu(E e_uv + P LN(x_v) + Q LN(x_u))                     e_uv <- e_uv + a_uv
    f_v  = mean over u of a_uv[k] * (1, (R LN(x_u))[k])             along the edges, head by head
    g_u  = mean over v of a_uv[k] * (1, (S LN(x_v))[k])             messages backward, against them
    x_v  <- x_v + MLP(x_v, f_v, g_v)

Every channel of an edge scales one head of its neighbor, and is a message of its own (the 1). There
is no perceptron over (x_u, x_v, e_uv): one K x K map for each edge and layer is all the arithmetic
that grows with the number of edges, and in dense arrays messages are matrix products.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metanet.graphs.topology import GraphSizes
from metanet.layers.head import Head


class Projections(NamedTuple):
    """What the nodes bring to their edges; `D = 1 + H / K`.

    Attributes:
        written: `P LN(x)`, for edges that write the node, `[..., K]`.
        read: `Q LN(x)`, for edges that read the node, `[..., K]`.
        forward: `(1, R LN(x))`, what the node sends forward, `[..., K, D]`.
        backward: `(1, S LN(x))`, what the node sends backward, `[..., K, D]`.
    """

    written: Tensor
    read: Tensor
    forward: Tensor
    backward: Tensor


class MessageLayer(nn.Module):
    """One round of messages; see the module's formula.

    References:
        Lim et al. 2024, arXiv 2312.04501, section 3.3 (node and edge updates); Kofinas et al. 2024,
        arXiv 2403.12143, equation 4 (messages with a scale and a shift from the edge); Bresson and
        Laurent 2017, arXiv 1711.07553, equation 11 (gates).
    """

    def __init__(self, width: int, edge_width: int):
        """Build.

        Args:
            width: Channels H of nodes.
            edge_width: Channels K of edges, a divisor of H.

        Raises:
            ValueError: If K does not divide H.
        """
        super().__init__()
        if width % edge_width:
            raise ValueError(
                "expected edge_width a divisor of width, "
                f"got width {width} and edge_width {edge_width}"
            )
        self.sizes = [edge_width, edge_width, width, width]
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, sum(self.sizes))
        self.edge = nn.Linear(edge_width, edge_width, bias=False)
        self.first = nn.Linear(3 * width + 2 * edge_width, width)
        self.first_norm = nn.LayerNorm(width)
        self.second = nn.Linear(width, width)

    def projections(self, x: Float[Tensor, "*nodes H"]) -> Projections:
        """What the nodes bring to their edges."""
        written, read, *sent = self.project(self.norm(x)).split(self.sizes, dim=-1)
        heads = [values.unflatten(-1, (self.sizes[0], -1)) for values in sent]
        heads = [F.pad(values, (1, 0), value=1.0) for values in heads]
        return Projections(written, read, *heads)

    def update(
        self,
        x: Float[Tensor, "*nodes H"],
        forward: Float[Tensor, "*nodes K D"],
        backward: Float[Tensor, "*nodes K D"],
    ) -> Float[Tensor, "*nodes H"]:
        """New features of the nodes from their messages."""
        hidden = self.first(torch.cat([x, forward.flatten(-2), backward.flatten(-2)], dim=-1))
        return x + self.second(torch.relu(self.first_norm(hidden)))


class GraphNetwork(nn.Module):
    """Encoders of nodes and edges, message layers and a readout; a runner brings the graph.

    x_v = A n_v * (1 + s_orbit(v)) + t_orbit(v)      n: features of nodes; edges likewise, by type
    out = MLP(means of LN(x) over each node set)
    """

    def __init__(
        self,
        sizes: GraphSizes,
        width: int,
        edge_width: int,
        layers: int,
        layer: Callable[[int, int], nn.Module] = MessageLayer,
        num_outputs: int | None = None,
    ):
        """Build.

        Args:
            sizes: Of the largest graphs it will read.
            width: Channels H of nodes.
            edge_width: Channels K of edges.
            layers: Rounds of messages.
            layer: Builds a round for H and K; its kind decides who can run the network.
            num_outputs: See `Head`.

        Raises:
            ValueError: If there is no layer or no channel.
        """
        super().__init__()
        self.node_encoder = Encoder(sizes.node_channels, sizes.orbits, width)
        self.edge_encoder = Encoder(sizes.edge_channels, sizes.edge_types, edge_width)
        self.layers = nn.ModuleList(layer(width, edge_width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(sizes.node_sets * width, 2 * width)
        self.readout = Head(2 * width, num_outputs)

    def decode(self, means: Float[Tensor, "B sets H"]) -> Float[Tensor, "B *K"]:
        """Raw prediction from the means of node sets, zero for sets that a graph lacks."""
        pooled = means.flatten(1)
        missing = self.hidden.in_features - pooled.shape[1]
        return self.readout(torch.relu(self.hidden(F.pad(pooled, (0, missing)))))


class Encoder(nn.Module):
    """Linear in the features, scaled and shifted by kind (orbit of a node, type of an edge)."""

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

    def forward(
        self, features: Float[Tensor, "*entries C"], kind: Int64[Tensor, "*kinds"]
    ) -> Float[Tensor, "*entries H"]:
        """Encode.

        Args:
            features: Channels of nodes or edges, at most as many as the widest.
            kind: Their kinds; broadcasts against the entries.

        Returns:
            Encoded features.
        """
        return self.scaled(features, kind) + self.shift[kind]

    def scaled(
        self, features: Float[Tensor, "*entries C"], kind: Int64[Tensor, "*kinds"]
    ) -> Float[Tensor, "*entries H"]:
        """`forward` without the shift."""
        return features @ self.weight[: features.shape[-1]] * (1 + self.scale[kind])

    def map_of(self, channels: int, kind: int) -> Float[Tensor, "H _"]:
        """The linear map of a kind, of its first channels."""
        return (self.weight[:channels] * (1 + self.scale[kind])).T

    def dense(self, features: Float[Tensor, "B W R C"], kind: int) -> Float[Tensor, "B H W R"]:
        """Encode edges that are all of one kind, channels first.

        Args:
            features: Edges of one part.
            kind: Their kind.

        Returns:
            Encoded features.
        """
        weight = self.map_of(features.shape[-1], kind).expand(len(features), -1, -1)
        flat = torch.baddbmm(self.shift[kind][:, None], weight, features.flatten(1, 2).mT)
        return flat.unflatten(2, features.shape[1:3])
