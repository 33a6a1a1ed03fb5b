"""`nfn`: equivariant linear layers on the tensors of the networks."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec, Options, Training
from metanet.graphs.topology import node_features, parameter_graph
from metanet.inputs.normalize import Normalized, ParamsNorm
from metanet.layers.equivariant import EquivariantLayer, Features, Incidence
from metanet.layers.head import Head
from zoo.options import Depth, Share, Width
from zoo.params import Params


class NeuralFunctional(Normalized):
    """Equivariant layers, means of all tensors, a perceptron. Invariant to declared permutations.

    Every entry of a tensor is mixed with its row, its column, everything that shares a neuron with
    it, and the means of all tensors. Positions of groups that are not permutable (inputs, outputs,
    all neurons of an asymmetric network) have parameters
    of their own in the encoder: one map and one embedding each. Fixed entries read as zero.

    References:
        Zhou et al. 2023, arXiv 2302.14040 ("NFN", variant NP); Zhou et al. 2024, arXiv 2402.05232
        ("UNF").
    """

    recommended = Training(epochs=40, batch_size=32, lr=3e-3, weight_decay=0.1, patience=10)
    invariant = "permutations"
    presets: ClassVar[Mapping[str, Options]] = {
        "published": {"width": 16, "layers": 3, "hidden": 1150}
    }

    def __init__(
        self,
        spec: InputSpec,
        *,
        width: Width = 16,
        layers: Depth = 3,
        hidden: Width = 128,
        dropout: Share = 0.2,
    ):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Channels of every entry and every neuron.
            layers: Equivariant layers.
            hidden: Neurons of both hidden layers of the readout.
            dropout: Share of those neurons set to zero at each training step.
        """
        super().__init__()
        self.norm = ParamsNorm(spec)
        self.graph = parameter_graph(spec.space)
        incidence = Incidence(self.graph)
        self.encoder = PositionEncoder(incidence, width)
        channels = [part.shape[-1] for part in incidence.parts]
        self.layers = nn.ModuleList(
            EquivariantLayer(incidence, [width] * len(channels) if at else channels, width)
            for at in range(layers)
        )
        pooled = width * (len(incidence.counts) + len(channels))
        self.readout = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Linear(pooled, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            Head(hidden, spec.num_outputs),
        )

    def forward(self, features: Params) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        state = self.encoder(self.norm(features))
        for at, layer in enumerate(self.layers):
            state = layer(state, keep=at + 1 < len(self.layers))
        means = [values.mean(1) for values in (*state.nodes, *state.ends[::2])]
        return self.readout(torch.cat(means, dim=-1))


class PositionEncoder(nn.Module):
    """Linear in what meets a neuron.

    Positions that no declared permutation can exchange have a map and a shift each.

        v_s = A_orbit(s) n_s + t_orbit(s)
        row_w = sum over r of Q_orbit(r) e_wr / sqrt(R)        columns likewise

    Entries themselves are passed on as they are: a linear map follows.
    """

    orbit: Tensor

    def __init__(self, incidence: Incidence, width: int):
        """Build.

        Args:
            incidence: Parts and node sets.
            width: Channels C.
        """
        super().__init__()
        self.incidence = incidence
        self.register_buffer("orbit", torch.cat(incidence.orbits), persistent=False)
        sets = incidence.graph.node_sets
        kinds = [int(orbit.max()) + 1 for orbit in incidence.orbits]
        self.shift = nn.ParameterList(torch.randn(kind, width) for kind in kinds)
        self.node = nn.ParameterDict(
            {
                str(at): _maps(kinds[at], node_set.channels, width)
                for at, node_set in enumerate(sets)
                if node_set.channels
            }
        )
        self.row = nn.ParameterList(
            _maps(kinds[part.read], part.shape[-1], width) for part in incidence.parts
        )
        self.column = nn.ParameterList(
            _maps(kinds[part.written], part.shape[-1], width) for part in incidence.parts
        )

    def forward(self, params: Params) -> Features:
        """Encode.

        Args:
            params: Tensors `[B, *shape]`.

        Returns:
            Features whose edges have the channels of the parts, not yet C.
        """
        graph = self.incidence.graph
        orbits = self.orbit.split([node_set.size for node_set in graph.node_sets])
        vectors = node_features(graph, params)
        nodes = [self._nodes(at, orbit, vectors) for at, orbit in enumerate(orbits)]
        edges, ends = [], []
        for at, part in enumerate(self.incidence.parts):
            e = part.view(params)
            along_read = self.row[at][orbits[part.read]]
            along_written = self.column[at][orbits[part.written]]
            ends.append(torch.einsum("bwrk,rkc->bwc", e, along_read) / e.shape[2] ** 0.5)
            ends.append(torch.einsum("bwrk,wkc->brc", e, along_written) / e.shape[1] ** 0.5)
            edges.append(e.permute(0, 3, 1, 2).contiguous())
        return Features(nodes, edges, ends)

    def _nodes(self, at: int, orbit: Tensor, vectors: Float[Tensor, "B V K"]) -> Tensor:
        """Features of the neurons of a node set."""
        node_set = self.incidence.graph.node_sets[at]
        shift = self.shift[at][orbit].expand(len(vectors), -1, -1)
        if not node_set.channels:
            return shift
        entries = vectors[:, node_set.nodes, : node_set.channels]
        return shift + torch.einsum("bvk,vkc->bvc", entries, self.node[str(at)][orbit])


def _maps(kinds: int, channels: int, width: int) -> Tensor:
    return torch.randn(kinds, channels, width) / channels**0.5
