"""How the signs that a space declares act on its parameter graph.

A node has one sign: the product of the signs of those of its neurons that have any. A part of the
    graph is

    "odd"               if it flips with the signs of its nodes: `e_vu -> s_v s_u e_vu`, and `b_v -> s_v b_v` for a vector
    "written", "read"   if it flips with those of its written nodes v, or of its read nodes u, alone
    "even"              if no sign flips it
    "mixed"             if it flips otherwise, as `(a b^2)` with the signs of `a` alone; its absolute value is even

Nodes without signs, such as inputs and outputs, count as of sign 1: to them, everything is as odd
as it is even.
"""

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from metanet.graphs.topology import ParameterGraph, Part, Relation
from zoo.weight_space import WeightSpace

Parity = Literal["odd", "written", "read", "even", "mixed"]


def has_signs(space: WeightSpace) -> bool:
    """Whether any neurons of the space have signs."""
    return any(group.scaling in ("sign", "any") for group in space.groups.values())


def parity(graph: ParameterGraph, part: Part | Relation) -> Parity:
    """How signs act on a part.

    Args:
        graph: Topology.
        part: One of its vectors or edges.

    Returns:
        The parity; `"even"` if its nodes have no signs.
    """
    if isinstance(part, Relation):
        return "even"
    sides, start = [], 0
    for at in (part.written,) if part.read is None else (part.written, part.read):
        end = start + len(graph.node_sets[at].axis)
        dims = [part.block.dims[place] for place in part.order[start:end]]
        sides.append(
            {
                dim.power % 2 == 1
                for dim in dims
                if graph.space.groups[str(dim.group)].scaling in ("sign", "any")
            }
        )
        start = end
    if any(len(odd) == 2 for odd in sides):
        return "mixed"
    if True not in set().union(*sides):
        return "even"
    if False not in set().union(*sides):
        return "odd"
    return "written" if sides[0] == {True} else "read"


def signed_nodes(graph: ParameterGraph) -> Bool[Tensor, " V"]:
    """Which nodes have a sign."""
    groups = graph.space.groups
    signed = [
        any(groups[name].scaling in ("sign", "any") for name in own.axis) for own in graph.node_sets
    ]
    return torch.tensor(signed, dtype=torch.bool)[graph.node_set]


def parity_of_channels(graph: ParameterGraph) -> tuple[Bool[Tensor, "V C"], Bool[Tensor, "V C"]]:
    """Which features of nodes are even, and which flip with the sign of their node.

    Args:
        graph: Topology.

    Returns:
        Even ones and odd ones; features of nodes without signs are both.
    """
    shape = len(graph.orbit), graph.sizes.node_channels
    even, odd = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
    signed = signed_nodes(graph)
    for part in graph.vectors:
        nodes, channels = (
            graph.node_sets[part.written].nodes,
            slice(part.slot, part.slot + part.shape[-1]),
        )
        kind = parity(graph, part)
        even[nodes, channels] = kind == "even"
        odd[nodes, channels] = kind == "odd" or not bool(signed[nodes].any())
    return even, odd
