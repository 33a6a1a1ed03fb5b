"""Permutation-equivariant layers on the tensors of a weight space, by pooling: no basis is ever written down.

Features live on the parameter graph (`metanet.graphs.topology`): node set s (a product of neuron
groups) has channels `v_s [B, S, C]`, part p (a block of a tensor, cut along sums) has channels
`e_p [B, C, W, R]`, W its written and R its read node set. A layer is

    z_s  = (v_s, means over R of the parts that write s, means over W of those that read it)       per neuron, n_s C channels
    t_s  = L_s z_s + sum over groups g of s: up_g down_g (means over all but g of the z that have g) + up down (means of all z)
    v_s' = v_s + act(first C channels of t_s)
    e_p' = act(M_p e_p + its channels of t_W, along R + its channels of t_R, along W)

so that an entry collects itself, its row, its column, everything that shares a neuron with it and
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
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metanet.graphs.topology import ParameterGraph, Part

CHUNK_FLOATS = 2**17
"""Entries times channels of a chunk: half a megabyte of float32, so that the few arrays at work fit a core's cache."""


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
        self.parts = [part for part in graph.edges if isinstance(part, Part)]
        places = range(len(graph.node_sets))
        self.written = [
            [at for at, part in enumerate(self.parts) if part.written == place] for place in places
        ]
        self.read = [
            [at for at, part in enumerate(self.parts) if part.read == place] for place in places
        ]
        self.counts = [
            1 + len(rows) + len(columns)
            for rows, columns in zip(self.written, self.read, strict=True)
        ]
        self.exchanges: list[tuple[str | None, list[int]]] = [(None, list(places))]
        for group in dict.fromkeys(group for own in graph.node_sets for group in own.axis):
            have = [place for place in places if group in graph.node_sets[place].axis]
            if len(have) > 1 or len(graph.node_sets[have[0]].axis) > 1:
                self.exchanges.append((group, have))

    def orbits(self, place: int) -> Int64[Tensor, " S"]:
        """Orbits of the nodes of a set, from 0."""
        own = self.graph.orbit[self.graph.node_sets[place].nodes]
        return own - own.min()

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
        """Features of a group on all nodes of a set that it is a factor of; on one node that stands for all if it is None.

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
        """Number of positions of the factors before a group, of the group, and of those after it."""
        own, size = self.graph.node_sets[place], self.graph.space.groups[group].size
        after = 1
        for name in own.axis[own.axis.index(group) + 1 :]:
            after *= self.graph.space.groups[name].size
        return own.size // (size * after), size, after


class Exchange(nn.Module):
    """Linear between all features that share a group, through few channels: there are many, and most bring nothing new."""

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
        terms = [list(own.split(self.width, dim=-1)) for own in self._terms(features)]
        nodes = [
            self._activate(v, own.pop(0)) for v, own in zip(features.nodes, terms, strict=True)
        ]
        rows = {
            at: own.pop(0)
            for own, parts in zip(terms, self.incidence.written, strict=True)
            for at in parts
        }
        columns = {
            at: own.pop(0)
            for own, parts in zip(terms, self.incidence.read, strict=True)
            for at in parts
        }
        new = Features(nodes, [] if keep else None, [], [])
        for at, e in enumerate(features.edges):
            row, column = (values[at].transpose(1, 2).contiguous() for values in (rows, columns))
            made = pointwise(e, self.own[at], row, column, self.slope, keep)
            if new.edges is not None:
                new.edges.append(made[0])
            new.rows.append(made[1].transpose(1, 2) / e.shape[3])
            new.columns.append(made[2].transpose(1, 2) / e.shape[2])
        return new

    def _activate(self, v: Tensor, term: Tensor) -> Tensor:
        return v + nn.functional.leaky_relu(term, self.slope)

    def _terms(self, features: Features) -> list[Tensor]:
        """For each node set, what it, rows and columns receive at its nodes, side by side."""
        incidence, z = self.incidence, []
        for v, written, read in zip(features.nodes, incidence.written, incidence.read, strict=True):
            z.append(
                torch.cat(
                    [
                        v,
                        *(features.rows[at] for at in written),
                        *(features.columns[at] for at in read),
                    ],
                    dim=-1,
                )
            )
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
    results = _Pointwise.apply(e, *(value.to(e) for value in (weight, row, column)), slope, keep)
    return results if keep else (e, *results)  # type: ignore[return-value]


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        e, weight, row, column, ctx.slope, keep = arguments
        ctx.set_materialize_grads(False)
        chunks = _chunks(e, weight)
        a = _empty(e, weight, len(e) if keep else chunks[0].stop)
        rows, columns = torch.empty_like(row), torch.empty_like(column)
        for part in chunks:
            own = _activations(
                e[part], weight, row[part], column[part], ctx.slope, a[part] if keep else a
            )
            torch.sum(own, 3, out=rows[part])
            torch.sum(own, 2, out=columns[part])
        ctx.save_for_backward(e, weight, row, column, *[a] * keep)
        return (a, rows, columns) if keep else (rows, columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        e, weight, row, column, *known = ctx.saved_tensors
        kept, rows, columns = gradients if known else (None, *gradients)
        rows = torch.zeros_like(row) if rows is None else rows
        columns = torch.zeros_like(column) if columns is None else columns
        of_e = torch.empty_like(e) if ctx.needs_input_grad[0] else None
        of_weight, of_row, of_column = (
            torch.zeros_like(weight),
            torch.empty_like(row),
            torch.empty_like(column),
        )
        chunks = _chunks(e, weight)
        buffers = [_empty(e, weight, chunks[0].stop) for _ in range(1 if known else 2)]
        for part in chunks:
            ends = row[part], column[part]
            a = (
                known[0][part]
                if known
                else _activations(e[part], weight, *ends, ctx.slope, buffers[1])
            )
            delta = torch.add(
                rows[part][..., None], columns[part][..., None, :], out=buffers[0][: len(a)]
            )
            if kept is not None:
                delta.add_(kept[part])
            torch.ops.aten.leaky_relu_backward.grad_input(
                delta, a, ctx.slope, True, grad_input=delta
            )
            torch.sum(delta, 3, out=of_row[part])
            torch.sum(delta, 2, out=of_column[part])
            flat = delta.flatten(2)
            of_weight += torch.bmm(flat, e[part].flatten(2).mT).sum(0)
            if of_e is not None:
                torch.bmm(weight.T.expand(len(flat), -1, -1), flat, out=of_e[part].flatten(2))
        return of_e, of_weight, of_row, of_column, None, None


def _activations(
    e: Tensor, weight: Tensor, row: Tensor, column: Tensor, slope: float, out: Tensor
) -> Tensor:
    a = torch.add(row[..., None], column[..., None, :], out=out[: len(e)])
    a.flatten(2).baddbmm_(weight.expand(len(e), -1, -1), e.flatten(2))
    return nn.functional.leaky_relu_(a, slope)


def _empty(e: Tensor, weight: Tensor, count: int) -> Tensor:
    """Room for activations, used again chunk by chunk: touching fresh memory costs more than the arithmetic."""
    return e.new_empty(count, len(weight), *e.shape[2:])


def _chunks(e: Tensor, weight: Tensor) -> list[slice]:
    budget = CHUNK_FLOATS if e.device.type == "cpu" else 256 * CHUNK_FLOATS
    size = max(1, budget // max(1, e[0, 0].numel() * max(weight.shape)))
    return [slice(start, start + size) for start in range(0, len(e), size)]
