"""How the signs that a space declares act on its parameter graph.

A node has one sign: the product of the signs of those of its neurons that have any. A part of the
    graph is

    "odd"               if it flips with the signs of its nodes: `e_vu -> s_v s_u e_vu`
    "written", "read"   if it flips with those of its written nodes v, or of its read nodes u, alone
    "even"              if no sign flips it
    "mixed"             if it flips otherwise, as `(a b^2)` with the signs of `a`; its size is even

Nodes without signs, such as inputs and outputs, count as of sign 1: to them, everything is as odd
as it is even.
"""

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from metanet.graphs.parts import EdgePart, NodePart, Relation
from metanet.graphs.topology import ParameterGraph
from zoo.weight_space import WeightSpace

Parity = Literal["odd", "written", "read", "even", "mixed"]


def has_signs(space: WeightSpace) -> bool:
    """Whether any neurons of the space have signs."""
    return any(_has_sign(space, name) for name in space.groups)


def parity(graph: ParameterGraph, part: NodePart | EdgePart | Relation) -> Parity:
    """How signs act on a part.

    Args:
        graph: Topology.
        part: One of its vectors or edges.

    Returns:
        The parity; `"even"` if its nodes have no signs.
    """
    if isinstance(part, Relation):
        return "even"
    node_sets = (part.node_set,) if isinstance(part, NodePart) else (part.written, part.read)
    axes = list(part.order)
    odd_powers = []  # for each side, whether the powers of its signs are odd
    for node_set in node_sets:
        side = [part.block.dims[axes.pop(0)] for _ in graph.node_sets[node_set].axis]
        powers = {dim.power % 2 for dim in side if _has_sign(graph.space, str(dim.group))}
        odd_powers.append(powers)
    if {0, 1} in odd_powers:
        return "mixed"
    if {1} not in odd_powers:
        return "even"
    if {0} not in odd_powers:
        return "odd"
    return "written" if odd_powers[0] == {1} else "read"


def _has_sign(space: WeightSpace, group: str) -> bool:
    return space.groups[group].scaling in ("sign", "any")


def signed_nodes(graph: ParameterGraph) -> Bool[Tensor, " V"]:
    """Which nodes have a sign."""
    signed = [
        any(_has_sign(graph.space, group) for group in node_set.axis)
        for node_set in graph.node_sets
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
    even, odd = torch.zeros(2, *shape, dtype=torch.bool)
    signed = signed_nodes(graph)
    for part in graph.vectors:
        nodes = graph.node_sets[part.node_set].nodes
        kind = parity(graph, part)
        even[nodes, part.channels] = kind == "even"
        odd[nodes, part.channels] = kind == "odd" or not bool(signed[nodes].any())
    return even, odd
