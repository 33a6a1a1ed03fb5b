"""`gmn` on several populations: one graph neural network for networks of any weight spaces.

It reads unseen weight spaces, too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metanet.contract import InputSpec, MetanetModule, Training
from metanet.feature_rows import Mixed
from metanet.graphs.parts import EdgePart
from metanet.graphs.topology import (
    MAX_SIZE,
    GraphSizes,
    check_size,
    edge_features,
    node_features,
    on_cpu,
)
from metanet.graphs.vocabulary import Vocabulary, vocabulary_of
from metanet.inputs.normalize import LIMIT, center_and_scale, joined, moments
from metanet.layers.dense import DenseGraph
from metanet.layers.message_passing import GraphNetwork
from zoo.options import Depth, Width
from zoo.params import flatten, unflatten


class MixedGraphMetanet(MetanetModule):
    """Message passing on parameter graphs; nodes and edges are known by kind.

        z = clamp((x sqrt(fan in) - center_kind) / scale_kind)

    It is invariant to declared permutations. The fan in of an edge is the number of entries of its
    tensor that its written node reads, and 1 for vectors. There is one center and scale for each
    kind of edges and each slot of nodes, so that nothing is measured on an unseen space. See
    `metanet.graphs.vocabulary` for kinds. The networks of each weight space run together as dense
    arrays.

    References:
        Lim et al. 2024, arXiv 2312.04501; Kofinas et al. 2024, arXiv 2403.12143 (one metanet for
        several architectures).
    """

    recommended = Training(epochs=30, batch_size=32, lr=3e-3, weight_decay=0.01, patience=8)
    invariant = "permutations"
    transfers = True
    center: Tensor
    scale: Tensor

    def __init__(
        self,
        specs: Sequence[InputSpec],
        *,
        width: Width = 32,
        edge_width: Width = 8,
        layers: Depth = 3,
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
        spaces = [spec.space for spec in specs]
        check_size(*spaces)
        if (entries := sum(space.num_params for space in spaces)) > MAX_SIZE:
            raise ValueError(f"gmn: networks of {entries} params; expected at most {MAX_SIZE}")
        self.vocabulary = on_cpu(vocabulary_of, spaces)
        roles, edges = len(self.vocabulary.roles), self.vocabulary.edges
        slots = len(self.vocabulary.slots)
        self.register_buffer("center", torch.zeros(len(edges) + slots))
        self.register_buffer("scale", torch.ones(len(edges) + slots))
        self.spaces = nn.ModuleDict()
        graphs = [self.space_graph(spec) for spec in specs]
        constants = graphs[0].constants.shape[1]
        positions = max(edges.values(), default=0)
        sizes = GraphSizes(slots + constants, positions, roles, len(edges), roles)
        outputs = specs[0].num_outputs
        self.network = GraphNetwork(sizes, width, edge_width, layers, num_outputs=outputs)

    def space_graph(self, spec: InputSpec) -> "SpaceGraph":
        """What it knows of a weight space, fitted or not.

        Args:
            spec: Weight space and masks.

        Returns:
            The same for each call.
        """
        if spec.key not in self.spaces:
            self.spaces[spec.key] = on_cpu(SpaceGraph, spec, self.vocabulary).to(self.center)
        return self._graph(spec.key)

    def _graph(self, key: str) -> "SpaceGraph":
        return cast(SpaceGraph, self.spaces[key])

    def transfer(self, spec: InputSpec) -> "MixedGraphMetanet":
        """Itself, if the kinds of the other networks are known."""
        self.space_graph(spec)
        return self

    def features_in(self, networks: Mapping[str, Tensor], spec: InputSpec) -> Mixed:
        """Flat params of networks of one weight space."""
        flat = flatten(spec.space, networks)
        return Mixed({spec.key: flat}, torch.arange(len(flat)))

    def calibrate(self, pieces: Iterable[Any]) -> None:
        """Medians, over the training networks, of the mean and the spread of each kind."""
        summaries = joined(self._moments(piece) for piece in pieces)
        for kind in range(len(self.center)):
            known = summaries[~summaries[:, kind, 0].isnan(), kind]
            if len(known):
                self.center[kind], self.scale[kind] = center_and_scale(known)

    def _moments(self, features: Mixed) -> Float[Tensor, "N kinds 2"]:
        """Mean and variance of the entries of each kind, NaN for a kind that a network lacks."""
        return self._each(features, lambda graph, flat: graph.moments(flat, len(self.center)))

    def forward(self, features: Mixed) -> Float[Tensor, "B *K"]:
        """Raw predictions."""
        return self._each(features, lambda graph, flat: graph.predict(self, flat))

    def _each(
        self, features: Mixed, compute: Callable[["SpaceGraph", Tensor], Tensor]
    ) -> Float[Tensor, "N *rest"]:
        """What is computed of the networks of each weight space, in the order of the networks."""
        by_space = [compute(self._graph(key), flat) for key, flat in features.parts.items()]
        return torch.cat(by_space)[features.order]


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
        self.space, self.kinds = spec.space, vocabulary.check(spec.space)
        self.graph = vocabulary.relabeled(self.kinds)
        self.dense = DenseGraph(self.graph)
        self.num_slots = len(vocabulary.slots)
        kind, gain = self._kind_and_gain(vocabulary)
        masks = [
            spec.free.get(name, torch.ones(shape)).flatten().bool()
            for name, shape in self.space.shapes.items()
        ]
        self.register_buffer("kind", kind, persistent=False)
        self.register_buffer("gain", gain, persistent=False)
        self.register_buffer("free", torch.cat(masks), persistent=False)
        self.register_buffer("constants", self.kinds.constants, persistent=False)

    def _kind_and_gain(self, vocabulary: Vocabulary) -> tuple[Int64[Tensor, "P"], Tensor]:
        """Kind of each entry, and the root of its fan in."""
        count = self.space.num_params
        places = unflatten(self.space, torch.arange(count)[None])
        kind, gain = torch.zeros(count, dtype=torch.int64), torch.ones(count)
        for kind_of_part, part in zip(self.graph.kinds, self.graph.edges, strict=True):
            if isinstance(part, EdgePart):
                entries = part.view(places).flatten()
                kind[entries] = kind_of_part
                gain[entries] = (part.shape[1] * part.shape[2]) ** 0.5
        slots = len(vocabulary.edges) + torch.arange(self.num_slots)
        for part in self.graph.vectors:
            kind[part.view(places)[0]] = slots[part.channels]
        return kind, gain

    def moments(self, flat: Float[Tensor, "N P"], num_kinds: int) -> Float[Tensor, "N kinds 2"]:
        """Mean and variance of the entries of each kind, NaN for a kind without entries."""
        shape = (len(flat), num_kinds, 2)
        by_kind = torch.full(shape, torch.nan, dtype=torch.float64, device=flat.device)
        kinds = torch.where(self.free, self.kind, -1).to(flat.device)
        scaled = flat * self.gain.to(flat)
        for kind in kinds[kinds >= 0].unique():
            by_kind[:, kind] = moments(scaled[:, kinds == kind])
        return by_kind

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
        vectors = node_features(self.graph, params, self.num_slots)
        nodes = torch.cat([vectors, self.constants.to(flat).expand(len(flat), -1, -1)], dim=2)
        edges = zip(edge_features(self.graph, params), self.kinds.orders, strict=True)
        return nodes, [part[..., order] for part, order in edges]

    def predict(
        self, metanet: MixedGraphMetanet, flat: Float[Tensor, "B P"]
    ) -> Float[Tensor, "B *K"]:
        """Raw predictions for networks of this space.

        Args:
            metanet: Holds what was learned.
            flat: Networks.

        Returns:
            Raw outputs, as the head gives them.
        """
        return self.dense(metanet.network, *self.inputs(metanet, flat))
