"""Permutation-equivariant layers on the tensors of a weight space, by pooling, without a basis.

Features live on the parameter graph (`metanet.graphs.topology`): node set s (a product of neuron
groups) has channels `v_s [B, S, C]`, part p (a block of a tensor, cut along sums) has channels
`e_p [B, C, W, R]`, W its written and R its read node set. A layer is

    z_s  = (v_s, means over R of the parts that write s, means over W of those that read it)
    t_s  = L_s z_s + up down (means of all z)
         + sum over groups g of s: up_g down_g (means over all but g of the z that have g)
    v_s' = v_s + act(first C channels of t_s)
    e_p' = act(M_p e_p + its channels of t_W, along R + its channels of t_R, along W)

z_s has n_s C channels for each neuron. So an entry collects itself, its row, its column, everything
that shares a neuron with it and
the means of all tensors, and only `M_p e_p` costs [entries x C x C]. Entries are what takes memory:
`pointwise` goes through them network by network, in a core's cache, and fresh memory for them is
asked for once a part.

Where every tensor has at most two groups and no two alike, as in an MLP or a CNN, these are the
terms of NFN (the means of all tensors through 2 C channels), without maps between tensors that have
the same two groups. Elsewhere the layer is a sub-family: it has no diagonals and transposes of a
tensor with one group on both sides, and no means that keep one group of each side of a tensor with
three groups or more.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.graphs.topology import ParameterGraph
from metanet.layers.entry_kernel import pointwise


class Features(NamedTuple):
    """Features of B networks on a parameter graph.

    Attributes:
        nodes: For each node set, `[B, S, C]`.
        edges: For each part, `[B, C, W, R]`; at the input, its plain axes stand for C. None after
            the last layer.
        ends: For each part its rows, `[B, W, C]`, means over R, then its columns, `[B, R, C]`,
            means over W.
    """

    nodes: list[Tensor]
    edges: list[Tensor] | None
    ends: list[Tensor]


class Incidence:
    """Which parts meet which node sets, and which sets share a group.

    Attributes:
        parts: Parts that join neurons.
        ends: For each node set, places among `Features.ends` of the rows of parts that write it,
            then of the columns of parts that read it.
        counts: For each node set, number of features that meet there: itself, rows, columns.
        orbits: For each node set, orbits of its nodes, from 0.
        exchanges: For each exchange, its group (None for all sets) and its node sets.
    """

    def __init__(self, graph: ParameterGraph):
        """Look them up.

        Args:
            graph: Topology.
        """
        self.graph = graph
        self.parts = graph.tensors
        places = range(len(graph.node_sets))
        self.ends = [self._ends(place) for place in places]
        self.counts = [1 + len(ends) for ends in self.ends]
        self.exchanges = [(None, list(places)), *_shared_groups(graph)]
        orbits = graph.orbit.split([node_set.size for node_set in graph.node_sets])
        self.orbits = [orbit - orbit.min() for orbit in orbits]

    def _ends(self, place: int) -> list[int]:
        rows = [2 * at for at, part in enumerate(self.parts) if part.written == place]
        return rows + [2 * at + 1 for at, part in enumerate(self.parts) if part.read == place]

    def pool(
        self, values: Float[Tensor, "B S C"], place: int, group: str | None
    ) -> Float[Tensor, "B G C"]:
        """Means over all but one group of a set; over everything, G = 1, if it is None.

        Args:
            values: Features of the set.
            place: Its place.
            group: One of its groups.

        Returns:
            Features of the neurons of the group.
        """
        if group is None:
            return values.mean(1, keepdim=True)
        before, size, after = self._around(place, group)
        return values.unflatten(1, (before, size, after)).mean((1, 3))

    def spread(
        self, values: Float[Tensor, "B G C"], place: int, group: str | None
    ) -> Float[Tensor, "B _ C"]:
        """Features of a group on all nodes of a set; without a group, on one node for all.

        Args:
            values: Features of the neurons of the group.
            place: Place of the set.
            group: One of its groups.

        Returns:
            Features of the set.
        """
        if group is None:
            return values
        before, _, after = self._around(place, group)
        return values[:, None, :, None].expand(-1, before, -1, after, -1).flatten(1, 3)

    def _around(self, place: int, group: str) -> tuple[int, int, int]:
        """Number of positions of the factors before a group, of the group, and of those after."""
        node_set, groups = self.graph.node_sets[place], self.graph.space.groups
        size = groups[group].size
        later = node_set.axis[node_set.axis.index(group) + 1 :]
        after = prod(groups[name].size for name in later)
        return node_set.size // (size * after), size, after


def _shared_groups(graph: ParameterGraph) -> Iterator[tuple[str, list[int]]]:
    """Groups that several node sets share, or that are a factor of one, and those sets."""
    sets_of: dict[str, list[int]] = {}
    for place, node_set in enumerate(graph.node_sets):
        for group in dict.fromkeys(node_set.axis):
            sets_of.setdefault(group, []).append(place)
    for group, sets in sets_of.items():
        if len(sets) > 1 or len(graph.node_sets[sets[0]].axis) > 1:
            yield group, sets


class Exchange(nn.Module):
    """Linear between all features that share a group, through few channels: most bring nothing."""

    def __init__(self, count: int, width: int):
        """Build.

        Args:
            count: Number of features.
            width: Channels C of each; twice as many in between.
        """
        super().__init__()
        self.down = nn.Linear(count * width, 2 * width, bias=False)
        self.up = nn.Linear(2 * width, count * width, bias=False)

    def forward(self, values: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch F"]:
        """Mix.

        Args:
            values: All features side by side.

        Returns:
            What each receives, side by side.
        """
        return self.up(self.down(values))


class EquivariantLayer(nn.Module):
    """One layer; see the module's formula.

    References:
        Zhou et al. 2023, arXiv 2302.14040, section 3 (NP layers); Zhou et al. 2024, arXiv
        2402.05232 (axes of any tensors).
    """

    def __init__(
        self, incidence: Incidence, channels: Sequence[int], width: int, slope: float = 0.0
    ):
        """Build.

        Args:
            incidence: Parts and node sets.
            channels: For each part, the channels that its edges come with.
            width: Channels C of everything else.
            slope: Of the activation below zero: 0 for ReLU, 1 for a layer that is affine.
        """
        super().__init__()
        self.incidence, self.width, self.slope = incidence, width, slope
        self.part_weights = nn.ParameterList(
            torch.randn(width, inputs) * (2 / inputs) ** 0.5 for inputs in channels
        )
        self.mix = nn.ModuleList(
            nn.Linear(count * width, count * width) for count in incidence.counts
        )
        shares = [sum(incidence.counts[place] for place in sets) for _, sets in incidence.exchanges]
        self.exchange = nn.ModuleList(Exchange(count, width) for count in shares)

    def forward(self, features: Features, keep: bool = True) -> Features:
        """New features.

        Args:
            features: Of B networks.
            keep: Whether new edges are wanted, or only their means.

        Returns:
            The new features.

        Raises:
            ValueError: If the features have no edges.
        """
        if features.edges is None:
            raise ValueError(
                "an equivariant layer: expected features with edges, got those of a last layer"
            )
        of_nodes, of_ends = self._received(features)
        nodes = [
            v + nn.functional.leaky_relu(term, self.slope)
            for v, term in zip(features.nodes, of_nodes, strict=True)
        ]
        edges, ends = [], []
        for index, e in enumerate(features.edges):
            row, column = (
                term.transpose(1, 2).contiguous() for term in of_ends[2 * index : 2 * index + 2]
            )
            a, over_read, over_written = pointwise(
                e, self.part_weights[index], row, column, self.slope, keep
            )
            edges.append(a)
            ends.append(over_read.transpose(1, 2) / e.shape[3])
            ends.append(over_written.transpose(1, 2) / e.shape[2])
        return Features(nodes, edges if keep else None, ends)

    def _received(self, features: Features) -> tuple[list[Tensor], list[Tensor]]:
        """What nodes receive, and what rows and columns do: the terms of each node set, cut."""
        nodes, ends = [], [torch.empty(0)] * len(features.ends)
        for places, terms in zip(self.incidence.ends, self._terms(features), strict=True):
            of_nodes, *others = terms.split(self.width, dim=-1)
            nodes.append(of_nodes)
            for place, term in zip(places, others, strict=True):
                ends[place] = term
        return nodes, ends

    def _terms(self, features: Features) -> list[Tensor]:
        """For each node set, what it, rows and columns receive at its nodes, side by side."""
        incidence = self.incidence
        z = [
            torch.cat([v, *(features.ends[end] for end in ends)], dim=-1)
            for v, ends in zip(features.nodes, incidence.ends, strict=True)
        ]
        terms = [mix(values) for mix, values in zip(self.mix, z, strict=True)]
        for exchange, (group, sets) in zip(self.exchange, incidence.exchanges, strict=True):
            pooled = torch.cat([incidence.pool(z[place], place, group) for place in sets], dim=-1)
            shares = exchange(pooled).split([z[place].shape[-1] for place in sets], dim=-1)
            for place, share in zip(sets, shares, strict=True):
                terms[place] = terms[place] + incidence.spread(share, place, group)
        return terms
