"""The parameter graph of a weight space: its neurons, and which parameter joins which of them.

Nodes are the positions of the *node axes* of a space: the product of the neuron groups on one side
of a tensor, most often one group. Edges run read -> written. What follows from the space alone is
here, in `parameter_graph`; `metanet.graphs.pyg` fills it with the parameters of networks, as
torch_geometric data.

    "h2 <- h1"                an edge from every neuron of h1 to every neuron of h2, one channel
    "c2 <- c1 3 3"            likewise, with nine channels: plain axes become channels
    "y <- (c2 16)"            edges from c2 to y with sixteen channels
    "h1"   "4 d"              one, four channels of every node of h1, of d
    "(head qk) <- d"          nodes are the positions of the product (head qk)
    "h <- (a + b)"            edges from a and edges from b
    ""                        one channel of a virtual node, whose axis is the empty product

Node axes that share a group, as queries `(head qk)` and values `(head v)` do, are joined without a
parameter: edges from all nodes of one to all of the other, with a channel that is 1 where the
shared groups agree and 0 elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from math import prod
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metanet.graphs.parts import EdgePart, NodeAxis, NodePart, NodeSet, Relation
from zoo.symmetry.action import orbit_ids
from zoo.symmetry.blocks import Block, cut_blocks
from zoo.weight_space import WeightSpace

_T = TypeVar("_T")
MAX_SIZE = 2**26
"""Node sets times nodes of a graph, and edges that no parameter fills."""


@dataclass(frozen=True, eq=False)
class ParameterGraph:
    """The topology of all networks of a weight space.

    Edges are listed part by part, each part in C order of (written, read).

    Attributes:
        space: The weight space.
        node_sets: Nodes, axis by axis.
        vectors: Parts that are features of nodes.
        edges: Parts that are features of edges, then relations.
        kinds: Kind of each part of `edges`: its place there.
        node_set: Place in `node_sets` of each node's set.
        orbit: Orbit of each node, from 0: nodes that a declared permutation can exchange share it.
    """

    space: WeightSpace
    node_sets: tuple[NodeSet, ...]
    vectors: tuple[NodePart, ...]
    edges: tuple[EdgePart | Relation, ...]
    kinds: tuple[int, ...]
    node_set: Int64[Tensor, " V"]
    orbit: Int64[Tensor, " V"]

    @property
    def tensors(self) -> list[EdgePart]:
        """Parts of `edges` that hold parameters."""
        return [part for part in self.edges if isinstance(part, EdgePart)]

    @cached_property
    def edge_index(self) -> Int64[Tensor, "2 E"]:
        """Read and written node of each edge."""
        ends = [_ends(self, part) for part in self.edges]
        return torch.cat([torch.zeros(2, 0, dtype=torch.int64), *ends], dim=1)

    @property
    def edge_type(self) -> Int64[Tensor, " E"]:
        """Kind of each edge's part."""
        return _repeated(self.kinds, [prod(part.shape[:2]) for part in self.edges])

    @property
    def sizes(self) -> "GraphSizes":
        """What a metanet that reads the graph must have room for."""
        return GraphSizes(
            node_channels=max((nodes.channels for nodes in self.node_sets), default=0),
            edge_channels=max((part.shape[-1] for part in self.edges), default=0),
            node_sets=len(self.node_sets),
            edge_types=len(self.edges),
            orbits=int(self.orbit.max()) + 1 if len(self.orbit) else 0,
        )


@dataclass(frozen=True)
class GraphSizes:
    """Sizes of one or more graphs.

    Attributes:
        node_channels: Widest features of a node.
        edge_channels: Widest features of an edge.
        node_sets: Most node sets.
        edge_types: Most parts with edges.
        orbits: Most orbits.
    """

    node_channels: int
    edge_channels: int
    node_sets: int
    edge_types: int
    orbits: int

    def __or__(self, other: "GraphSizes") -> "GraphSizes":
        """Sizes that hold the graphs of both."""
        return GraphSizes(*map(max, astuple(self), astuple(other)))


@lru_cache(maxsize=64)
def parameter_graph(space: WeightSpace) -> ParameterGraph:
    """The parameter graph of a weight space.

    A tensor whose groups all stand on one side, on several axes, is read as edges from the later
    axes to the first one.

    Args:
        space: The weight space.

    Returns:
        The graph, made once for each space.

    References:
        Lim et al. 2024, arXiv 2312.04501, section 3; Kofinas et al. 2024, arXiv 2403.12143, section
        2.

    >>> from zoo.weight_space import NeuronGroup
    >>> groups = {"x": NeuronGroup(2, permutable=False), "h": NeuronGroup(3)}
    >>> graph = parameter_graph(WeightSpace(groups, {"weight": "h <- x 3", "bias": "h"}))
    >>> graph.edge_index[:, :3].tolist(), graph.orbit.tolist(), graph.sizes.edge_channels
    ([[0, 1, 0], [2, 2, 3]], [0, 1, 2, 2, 2], 3)
    """
    return on_cpu(_made_graph, space)


def on_cpu(function: Callable[..., _T], *arguments: Any) -> _T:
    """What a function makes of the topology, whose sizes are read, wherever a metanet is built."""
    with torch.device("cpu"):
        return function(*arguments)


def _made_graph(space: WeightSpace) -> ParameterGraph:
    check_size(space)
    sided_blocks = _sided_blocks(space)
    axes = _axes(sided_blocks)
    num_channels = [0] * len(axes)
    vectors: list[NodePart] = []
    edges: list[EdgePart | Relation] = []
    for block, sides in sided_blocks:
        order, shape = _layout(block, sides)
        node_set, *others = (axes.index(_axis(block, side)) for side in sides)
        if others:
            edges.append(EdgePart(block, order, shape, node_set, *others))
        else:
            vectors.append(NodePart(block, order, shape, node_set, num_channels[node_set]))
            num_channels[node_set] += shape[-1]
    edges += _relations(space, axes)
    return _graph(space, _node_sets(space, axes, num_channels), vectors, edges)


def check_size(*spaces: WeightSpace) -> None:
    """Refuse weight spaces whose graphs are too large for memory, before any of it is made.

    Args:
        *spaces: The weight spaces.

    Raises:
        ValueError: If they have too many nodes, or edges that no parameter fills.
    """
    size = 0
    for space in spaces:
        axes = _axes(_sided_blocks(space))
        sizes = {axis: prod(space.groups[group].size for group in axis) for axis in axes}
        joined = (pair for pair in combinations(axes, 2) if set(pair[0]) & set(pair[1]))
        size += sum(sizes.values()) * len(axes)  # each node is or is not of each set
        size += sum(sizes[first] * sizes[second] for first, second in joined)
    if size > MAX_SIZE:
        raise ValueError(f"a parameter graph of size {size}; expected at most {MAX_SIZE}")


def _sided_blocks(space: WeightSpace) -> list[tuple[Block, list[list[int]]]]:
    return [(block, _sides(space, block)) for block in cut_blocks(space)]


def _axes(sided_blocks: Sequence[tuple[Block, list[list[int]]]]) -> list[NodeAxis]:
    axes = (_axis(block, side) for block, sides in sided_blocks for side in reversed(sides))
    return list(dict.fromkeys(axes))


def _layout(block: Block, sides: list[list[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes of a block in the order of its sides, plain ones last, and the sizes of the sides."""
    plain = [axis for axis, dim in enumerate(block.dims) if dim.group is None]
    order = [axis for side in sides for axis in side]
    shape = tuple(prod(block.dims[axis].size for axis in side) for side in [*sides, plain])
    return (*order, *plain), shape


def _sides(space: WeightSpace, block: Block) -> list[list[int]]:
    """Written axes of a block, then the read ones if it joins neurons with neurons."""
    powers = space.pattern(block.tensor).powers
    grouped = [at for at, dim in enumerate(block.dims) if dim.group is not None]
    is_read = {at: powers[block.axes[at]] < 0 for at in grouped}
    if len(set(is_read.values())) == 1:
        is_read = {at: block.axes[at] != block.axes[grouped[0]] for at in grouped}
    written, read = ([at for at in grouped if is_read[at] == side] for side in (False, True))
    return [written, read] if read else [written]


def _axis(block: Block, side: list[int]) -> NodeAxis:
    return tuple(str(block.dims[at].group) for at in side)


def _node_sets(space: WeightSpace, axes: list[NodeAxis], channels: list[int]) -> list[NodeSet]:
    sets, start = [], 0
    for axis, width in zip(axes, channels, strict=True):
        sets.append(NodeSet(axis, start, prod(space.groups[group].size for group in axis), width))
        start += sets[-1].size
    return sets


def _relations(space: WeightSpace, axes: list[NodeAxis]) -> Iterator[Relation]:
    for (read, first), (written, second) in combinations(enumerate(axes), 2):
        shared = set(first) & set(second)
        if shared:
            agree = torch.ones(1, 1)
            for group in sorted(shared):
                to, of = _places(space, second, group), _places(space, first, group)
                agree = agree * (to[:, None] == of)
            yield Relation(agree[..., None], written, read)


def _places(space: WeightSpace, axis: NodeAxis, group: str) -> Int64[Tensor, " _"]:
    """For each position of a product, the neuron of one of its groups."""
    sizes = [space.groups[name].size for name in axis]
    return torch.unravel_index(torch.arange(prod(sizes)), sizes)[axis.index(group)]


def _graph(
    space: WeightSpace,
    sets: list[NodeSet],
    vectors: list[NodePart],
    edges: Sequence[EdgePart | Relation],
) -> ParameterGraph:
    orbits = [torch.zeros(0, dtype=torch.int64)]
    num_orbits = 0
    for node_set in sets:
        orbits.append(num_orbits + _orbits(space, node_set.axis))
        num_orbits = int(orbits[-1].max()) + 1
    return ParameterGraph(
        space=space,
        node_sets=tuple(sets),
        vectors=tuple(vectors),
        edges=tuple(edges),
        kinds=tuple(range(len(edges))),
        node_set=_repeated(range(len(sets)), [node_set.size for node_set in sets]),
        orbit=torch.cat(orbits),
    )


def _ends(graph: ParameterGraph, part: EdgePart | Relation) -> Int64[Tensor, "2 E"]:
    """Read and written node of all edges of a part."""
    written, read = (graph.node_sets[place].nodes for place in (part.written, part.read))
    nodes = (torch.arange(ends.start, ends.stop) for ends in (written, read))
    return torch.cartesian_prod(*nodes).T.flip(0)


def _repeated(numbers: Sequence[int], counts: Sequence[int]) -> Int64[Tensor, " _"]:
    """Each number as often as its count says."""
    each = torch.tensor(numbers, dtype=torch.int64)
    return each.repeat_interleave(torch.tensor(counts, dtype=torch.int64))


def _orbits(space: WeightSpace, axis: NodeAxis) -> Int64[Tensor, " _"]:
    """Orbits of the positions of a product, from 0: positions share one if all their factors do."""
    ids, of_groups = torch.zeros(1, dtype=torch.int64), orbit_ids(space)
    for group in axis:
        of_group = of_groups[group] - of_groups[group].min()
        ids = (ids[:, None] * (int(of_group.max()) + 1) + of_group).flatten()
    return ids


def node_features(
    graph: ParameterGraph, params: Mapping[str, Tensor], channels: int | None = None
) -> Float[Tensor, "N V C"]:
    """What the vectors of N networks say of their nodes, zero where a set has fewer channels.

    Args:
        graph: Topology.
        params: Tensors `[N, *shape]`.
        channels: Channels of the result, those of the graph if None.

    Returns:
        The features.
    """
    like = next(iter(params.values()))
    channels = graph.sizes.node_channels if channels is None else channels
    features = like.new_zeros(len(like), len(graph.orbit), channels)
    for part in graph.vectors:
        features[:, graph.node_sets[part.node_set].nodes, part.channels] = part.view(params)
    return features


def edge_features(
    graph: ParameterGraph, params: Mapping[str, Tensor]
) -> list[Float[Tensor, "N _ _ _"]]:
    """The parameters of N networks that join nodes.

    Args:
        graph: Topology.
        params: Tensors `[N, *shape]`.

    Returns:
        For each part of `graph.edges`, `[N, W, R, C]` with its own sizes and channels.
    """
    return [part.view(params) for part in graph.edges]
