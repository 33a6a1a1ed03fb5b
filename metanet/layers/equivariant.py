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

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metanet.graphs.topology import EdgePart, ParameterGraph
from metanet.layers.autograd import differentiable_once

CHUNK_FLOATS = 2**17
"""Entries times channels of a chunk: half a megabyte of float32, so that it fits a core's cache."""


class Features(NamedTuple):
    """Features of B networks on a parameter graph.

    Attributes:
        nodes: For each node set, `[B, S, C]`.
        edges: For each part, `[B, C, W, R]`; at the input, its plain axes stand for C. None after
            the last layer.
        rows: For each part, `[B, W, C]`, means over R.
        columns: For each part, `[B, R, C]`, means over W.
    """

    nodes: list[Tensor]
    edges: list[Tensor] | None
    rows: list[Tensor]
    columns: list[Tensor]


class Incidence:
    """Which parts meet which node sets, and which sets share a group.

    Attributes:
        parts: Parts that join neurons.
        written: For each node set, the parts that write it.
        read: For each node set, the parts that read it.
        counts: For each node set, number of features that meet there: itself, rows, columns.
        exchanges: For each exchange, its group (None for all sets) and its node sets.
    """

    def __init__(self, graph: ParameterGraph):
        """Look them up.

        Args:
            graph: Topology.
        """
        self.graph = graph
        self.parts = [part for part in graph.edges if isinstance(part, EdgePart)]
        places = range(len(graph.node_sets))
        self.written: list[list[int]] = [[] for _ in places]
        self.read: list[list[int]] = [[] for _ in places]
        for index, part in enumerate(self.parts):
            self.written[part.written].append(index)
            self.read[part.read].append(index)
        self.counts = [1 + len(self.written[place]) + len(self.read[place]) for place in places]
        self.exchanges: list[tuple[str | None, list[int]]] = [(None, list(places))]
        for group in dict.fromkeys(group for nodes in graph.node_sets for group in nodes.axis):
            sets = [place for place in places if group in graph.node_sets[place].axis]
            if len(sets) > 1 or len(graph.node_sets[sets[0]].axis) > 1:
                self.exchanges.append((group, sets))

    def orbits(self, place: int) -> Int64[Tensor, " S"]:
        """Orbits of the nodes of a set, from 0."""
        orbits = self.graph.orbit[self.graph.node_sets[place].nodes]
        return orbits - orbits.min()

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
        self.own = nn.ParameterList(
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
        received = self._received(features)
        nodes = [
            v + nn.functional.leaky_relu(term, self.slope)
            for v, term in zip(features.nodes, received.nodes, strict=True)
        ]
        new = Features(nodes, [] if keep else None, [], [])
        for index, e in enumerate(features.edges):
            row = received.rows[index].transpose(1, 2).contiguous()
            column = received.columns[index].transpose(1, 2).contiguous()
            a, over_read, over_written = pointwise(
                e, self.own[index], row, column, self.slope, keep
            )
            if new.edges is not None:
                new.edges.append(a)
            new.rows.append(over_read.transpose(1, 2) / e.shape[3])
            new.columns.append(over_written.transpose(1, 2) / e.shape[2])
        return new

    def _received(self, features: Features) -> Features:
        """What nodes, rows and columns receive: the terms of each node set, cut."""
        incidence = self.incidence
        num_parts = len(incidence.parts)
        nodes: list[Tensor] = []
        rows, columns = [torch.empty(0)] * num_parts, [torch.empty(0)] * num_parts
        for place, terms in enumerate(self._terms(features)):
            of_nodes, *others = terms.split(self.width, dim=-1)
            nodes.append(of_nodes)
            for part in incidence.written[place]:
                rows[part] = others.pop(0)
            for part in incidence.read[place]:
                columns[part] = others.pop(0)
        return Features(nodes, None, rows, columns)

    def _terms(self, features: Features) -> list[Tensor]:
        """For each node set, what it, rows and columns receive at its nodes, side by side."""
        incidence = self.incidence
        z = []
        for place, v in enumerate(features.nodes):
            rows = [features.rows[part] for part in incidence.written[place]]
            columns = [features.columns[part] for part in incidence.read[place]]
            z.append(torch.cat([v, *rows, *columns], dim=-1))
        terms = [mix(values) for mix, values in zip(self.mix, z, strict=True)]
        for exchange, (group, sets) in zip(self.exchange, incidence.exchanges, strict=True):
            pooled = torch.cat([incidence.pool(z[place], place, group) for place in sets], dim=-1)
            shares = exchange(pooled).split([z[place].shape[-1] for place in sets], dim=-1)
            for place, share in zip(sets, shares, strict=True):
                terms[place] = terms[place] + incidence.spread(share, place, group)
        return terms


def pointwise(
    e: Float[Tensor, "B K W R"],
    weight: Float[Tensor, "C K"],
    row: Float[Tensor, "B C W"],
    column: Float[Tensor, "B C R"],
    slope: float,
    keep: bool,
) -> tuple[Float[Tensor, "B _ W R"], Float[Tensor, "B C W"], Float[Tensor, "B C R"]]:
    """One linear map for all entries of a part, and its sums.

        a = act(M e + row + column)      sum of a over R      sum of a over W

    Args:
        e: Features of entries.
        weight: M.
        row: What all entries of a row receive.
        column: What all entries of a column receive.
        slope: Of the activation below zero.
        keep: Whether a itself is wanted.

    Returns:
        a (the old features if it is not wanted), its sums over R and over W. All are of the type of
        `e`, which under autocast may be another than that of the rest.
    """
    others = [value.to(e) for value in (weight, row, column)]
    a, rows, columns = _Pointwise.apply(e, *others, slope, keep)
    return a if keep else e, rows, columns


class _Part(NamedTuple):
    """One part of the edges: features of entries, and what rows and columns receive."""

    e: Tensor
    row: Tensor
    column: Tensor

    def of(self, networks: slice) -> "_Part":
        """Those of some networks."""
        return _Part(self.e[networks], self.row[networks], self.column[networks])

    def activations(self, weight: Tensor, slope: float, out: Tensor) -> Tensor:
        """`act(M e + row + column)`, written into the first networks of `out`."""
        count = len(self.e)
        a = torch.add(self.row[..., None], self.column[..., None, :], out=out[:count])
        a.flatten(2).baddbmm_(weight.expand(count, -1, -1), self.e.flatten(2))
        return nn.functional.leaky_relu_(a, slope)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, ...]:
        e, weight, row, column, ctx.slope, keep = arguments
        ctx.set_materialize_grads(False)
        part, chunks = _Part(e, row, column), _chunks(e, weight)
        a = _empty(e, weight, len(e) if keep else chunks[0].stop)
        rows, columns = torch.empty_like(row), torch.empty_like(column)
        for networks in chunks:
            out = a[networks] if keep else a
            some = part.of(networks).activations(weight, ctx.slope, out)
            torch.sum(some, 3, out=rows[networks])
            torch.sum(some, 2, out=columns[networks])
        ctx.save_for_backward(weight, *part, *[a] * keep)
        return a if keep else None, rows, columns

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        part, kept = _Part(*saved[:3]), saved[3:]
        of_a, of_rows, of_columns = grad_outputs
        of_rows = torch.zeros_like(part.row) if of_rows is None else of_rows
        of_columns = torch.zeros_like(part.column) if of_columns is None else of_columns
        gradients = _Part(*(torch.empty_like(value) for value in part))
        of_weight = torch.zeros_like(weight)
        chunks = _chunks(part.e, weight)
        buffer = _empty(part.e, weight, chunks[0].stop)
        again = None if kept else torch.empty_like(buffer)
        for networks in chunks:
            some, into = part.of(networks), gradients.of(networks)
            a = kept[0][networks] if again is None else some.activations(weight, ctx.slope, again)
            delta = torch.add(
                of_rows[networks][..., None],
                of_columns[networks][..., None, :],
                out=buffer[: len(a)],
            )
            if of_a is not None:
                delta.add_(of_a[networks])
            _through_activation(delta, a, ctx.slope)
            torch.sum(delta, 3, out=into.row)
            torch.sum(delta, 2, out=into.column)
            flat = delta.flatten(2)
            of_weight += torch.bmm(flat, some.e.flatten(2).mT).sum(0)
            if ctx.needs_input_grad[0]:
                torch.bmm(weight.T.expand(len(flat), -1, -1), flat, out=into.e.flatten(2))
        of_e = gradients.e if ctx.needs_input_grad[0] else None
        return of_e, of_weight, gradients.row, gradients.column, None, None


def _through_activation(delta: Tensor, a: Tensor, slope: float) -> None:
    """Multiply gradients by the slope of the activation whose results are a, in place."""
    torch.ops.aten.leaky_relu_backward.grad_input(delta, a, slope, True, grad_input=delta)


def _empty(e: Tensor, weight: Tensor, count: int) -> Tensor:
    """Room for activations, used again chunk by chunk: fresh memory costs more than arithmetic."""
    return e.new_empty(count, len(weight), *e.shape[2:])


def _chunks(e: Tensor, weight: Tensor) -> list[slice]:
    budget = CHUNK_FLOATS if e.device.type == "cpu" else 256 * CHUNK_FLOATS
    size = max(1, budget // max(1, e[0, 0].numel() * max(weight.shape)))
    return [slice(start, start + size) for start in range(0, len(e), size)]
