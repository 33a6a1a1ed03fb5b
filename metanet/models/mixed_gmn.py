"""`gmn` on several populations: one graph neural network for networks of any number of weight spaces, also unseen ones."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import Mixed, InputSpec, Training, spec_key
from metanet.graphs.topology import GraphSizes, Part
from metanet.graphs.vocabulary import Vocabulary, vocabulary_of
from metanet.inputs.normalize import center_and_scale, moments
from metanet.layers.dense import DenseGraph
from metanet.layers.message_passing import GraphNetwork
from zoo.params import flatten, unflatten

LIMIT = 20.0


class MixedGraphMetanet(nn.Module):
    """Message passing on parameter graphs whose nodes and edges are known by kind. Invariant to declared permutations.

        z = clamp((x sqrt(fan in) - center_kind) / scale_kind)

    where the fan in of an edge is the number of entries of its tensor that its written node reads,
    and 1 for vectors; one center and scale for each kind of edges and each slot of nodes, so that
    nothing is measured on an unseen space. See `metanet.graphs.vocabulary` for kinds. The networks
    of each weight space run together as dense arrays.

    References:
        Lim et al. 2024, arXiv 2312.04501; Kofinas et al. 2024, arXiv 2403.12143 (one metanet for
        several architectures).
    """

    recommended = Training(epochs=30, batch_size=32, lr=3e-3, weight_decay=0.01, patience=8)
    invariant = "permutations"
    center: Tensor
    scale: Tensor

    def __init__(
        self, specs: Sequence[InputSpec], *, width: int = 32, edge_width: int = 8, layers: int = 3
    ):
        """Build.

        Args:
            specs: Weight spaces and masks of the populations to learn from.
            width: Channels of nodes.
            edge_width: Channels of edges, a divisor of `width`.
            layers: Rounds of messages.

        Raises:
            ValueError: If there is no layer or no channel, or `edge_width` does not divide `width`.
        """
        super().__init__()
        self.vocabulary = vocabulary_of([spec.space for spec in specs])
        roles, edges, slots = self.vocabulary.roles, self.vocabulary.edges, self.vocabulary.slots
        self.spaces = nn.ModuleDict()
        for spec in specs:
            self.admit(spec)
        constants = self.space_graph(spec_key(specs[0])).constants.shape[1]
        sizes = GraphSizes(
            len(slots) + constants,
            max(edges.values(), default=0),
            len(roles),
            len(edges),
            len(roles),
        )
        self.network = GraphNetwork(sizes, width, edge_width, layers)
        self.register_buffer("center", torch.zeros(len(edges) + len(slots)))
        self.register_buffer("scale", torch.ones(len(edges) + len(slots)))

    def admit(self, spec: InputSpec) -> str:
        """Make networks of a weight space readable, fitted or not.

        Args:
            spec: Weight space and masks.

        Returns:
            Its key in features.
        """
        key = spec_key(spec)
        if key not in self.spaces:
            graph = SpaceGraph(spec, self.vocabulary)
            self.spaces[key] = graph.to(self.center) if hasattr(self, "center") else graph
        return key

    def space_graph(self, key: str) -> "SpaceGraph":
        """The weight space of a key."""
        return self.spaces[key]  # type: ignore[return-value]

    def features(self, networks: Mapping[str, Tensor], spec: InputSpec) -> Mixed:
        """Flat params of networks of one weight space."""
        flat = flatten(spec.space, networks)
        return Mixed({self.admit(spec): flat}, torch.arange(len(flat)))

    def summarize(self, features: Mixed) -> Float[Tensor, "N kinds 2"]:
        """Mean and variance of the entries of each kind, NaN for a kind that a network lacks."""
        found = []
        for key, flat in features.parts.items():
            graph, kinds = self.space_graph(key), range(len(self.center))
            own = torch.full(
                (len(flat), len(kinds), 2), torch.nan, dtype=torch.float64, device=flat.device
            )
            for kind in kinds:
                if (entries := graph.entries(flat, kind)).shape[1]:
                    own[:, kind] = moments(entries)
            found.append(own)
        return torch.cat(found)[features.order]

    def settle(self, summaries: Float[Tensor, "N kinds 2"]) -> None:
        """Medians, over the training networks, of the mean and the root mean square around the center, kind by kind."""
        for kind in range(len(self.center)):
            known = summaries[~summaries[:, kind, 0].isnan(), kind]
            if len(known):
                self.center[kind], self.scale[kind] = center_and_scale(known)

    def forward(self, features: Mixed) -> Float[Tensor, "B"]:
        """Raw predictions."""
        raw = [self.space_graph(key).predict(self, flat) for key, flat in features.parts.items()]
        return torch.cat(raw)[features.order]


class SpaceGraph(nn.Module):
    """What the metanet must know of one weight space; nothing of it is learned or saved."""

    kind: Tensor
    gain: Tensor
    free: Tensor
    constants: Tensor

    def __init__(self, spec: InputSpec, vocabulary: Vocabulary):
        """Prepare.

        Args:
            spec: Weight space and masks.
            vocabulary: Known kinds.
        """
        super().__init__()
        self.space, self.found = spec.space, vocabulary.check(spec.space)
        self.dense = DenseGraph(vocabulary.relabeled(self.found))
        self.slots = [[vocabulary.slots.index(slot) for slot in part] for part in self.found.slots]
        places = unflatten(self.space, torch.arange(self.space.num_params)[None])
        kind, gain = (
            torch.zeros(self.space.num_params, dtype=torch.int64),
            torch.ones(self.space.num_params),
        )
        for name, part in zip(self.found.edges, self.found.graph.edges, strict=True):
            if isinstance(part, Part):
                own = part.view(places).flatten()
                kind[own] = list(vocabulary.edges).index(name)
                gain[own] = (part.shape[1] * part.shape[2]) ** 0.5
        for slots, part in zip(self.slots, self.found.graph.vectors, strict=True):
            kind[part.view(places)[0]] = len(vocabulary.edges) + torch.tensor(slots)
        masks = [
            spec.free.get(name, torch.ones(shape)).flatten().bool()
            for name, shape in self.space.shapes.items()
        ]
        prepared = {
            "kind": kind,
            "gain": gain,
            "free": torch.cat(masks),
            "constants": self.found.constants,
        }
        for name, values in prepared.items():
            self.register_buffer(name, values, persistent=False)
        self.num_slots = len(vocabulary.slots)

    def entries(self, flat: Float[Tensor, "N P"], kind: int) -> Float[Tensor, "N F"]:
        """Free entries of one kind, times the root of their fan in."""
        chosen = (self.kind.to(flat.device) == kind) & self.free.to(flat.device)
        return flat[:, chosen] * self.gain.to(flat)[chosen]

    def inputs(
        self, metanet: MixedGraphMetanet, flat: Float[Tensor, "B P"]
    ) -> tuple[Float[Tensor, "B V C"], list[Float[Tensor, "B _ _ _"]]]:
        """Features of nodes, and of edges part by part.

        Args:
            metanet: Holds the normalization.
            flat: Networks.

        Returns:
            Features for `DenseGraph`.
        """
        scaled = (flat * self.gain - metanet.center[self.kind]) / metanet.scale[self.kind]
        params = unflatten(self.space, scaled.clamp(-LIMIT, LIMIT) * self.free)
        graph = self.found.graph
        vectors = flat.new_zeros(len(flat), len(graph.orbit), self.num_slots)
        for slots, part in zip(self.slots, graph.vectors, strict=True):
            vectors[:, graph.node_sets[part.written].nodes, slots] = part.view(params)
        nodes = torch.cat([vectors, self.constants.to(flat).expand(len(flat), -1, -1)], dim=2)
        ordered = [
            part.view(params)[..., order]
            for part, order in zip(graph.edges, self.found.orders, strict=True)
        ]
        return nodes, ordered

    def predict(self, metanet: MixedGraphMetanet, flat: Float[Tensor, "B P"]) -> Float[Tensor, "B"]:
        """Raw predictions for networks of this space.

        Args:
            metanet: Holds what was learned.
            flat: Networks.

        Returns:
            One number a network.
        """
        return self.dense(metanet.network, *self.inputs(metanet, flat))
