"""What parameter graphs of different weight spaces have in common, whatever the names in them.

Kinds of node sets are their *roles*: `input` (not permutable, only read), `output` (not permutable,
    only written), `hidden`
(with a permutable group), `fixed` (any other), `virtual`. Kinds of edges are the roles they join
and how many plain axes they have:

    "hidden <- input 2"      a convolution from the inputs
    "output <- hidden 0"     a matrix onto the outputs

Positions of a kernel are counted from its center outward: a matrix is the center of a 3 x 3 kernel,
which is the middle of a 5 x 5 one. A vector is known by the power of its scale and by its place
among the vectors of that power on its nodes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import inf, log, prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metanet.graphs.parts import EdgePart, Relation
from metanet.graphs.topology import ParameterGraph, parameter_graph
from zoo.weight_space import WeightSpace

Slot = tuple[int, int, int]
WAVES = 4


@dataclass(frozen=True, eq=False)
class Description:
    """A parameter graph in terms that other weight spaces share.

    Attributes:
        graph: The graph.
        roles: Role of each node set.
        edges: Kind of each part with edges.
        orders: For each part with edges, its channels from the center outward.
        slots: For each part that is features of nodes, power, place and channel of its channels.
        constants: What is known of a node from the space, `[V, F]`: its place between inputs and
            outputs, which of the neurons of a fixed group it is (waves over its orbit's number;
            zero where all share one), and log sizes of its set, of what it reads and sends, and of
            the network.
    """

    graph: ParameterGraph
    roles: tuple[str, ...]
    edges: tuple[str, ...]
    orders: tuple[list[int], ...]
    slots: tuple[tuple[Slot, ...], ...]
    constants: Float[Tensor, "V F"]


@lru_cache(maxsize=64)
def describe(space: WeightSpace) -> Description:
    """Describe the parameter graph of a space.

    Args:
        space: The weight space.

    Returns:
        Its description, made once for each space.

    >>> from zoo.weight_space import NeuronGroup
    >>> ends = {name: NeuronGroup(2, permutable=False) for name in ("x", "y")}
    >>> groups = {**ends, "h": NeuronGroup(3)}
    >>> description = describe(WeightSpace(groups, {"0": "h <- x 3 3", "1": "h", "2": "y <- h"}))
    >>> description.roles, description.edges
    (('input', 'hidden', 'output'), ('hidden <- input 2', 'output <- hidden 0'))
    """
    graph = parameter_graph(space)
    roles = tuple(_role(graph, node_set) for node_set in range(len(graph.node_sets)))
    kernels = [_kernel(part) for part in graph.edges]
    kinds = (
        f"{roles[part.written]} <- {roles[part.read]} "
        f"{len(kernel) if isinstance(part, EdgePart) else 'shared'}"
        for part, kernel in zip(graph.edges, kernels, strict=True)
    )
    return Description(
        graph=graph,
        roles=roles,
        edges=tuple(kinds),
        orders=tuple(map(_outward, kernels)),
        slots=tuple(_slots(graph)),
        constants=_constants(graph, roles),
    )


def _kernel(part: EdgePart | Relation) -> list[int]:
    """Sizes of the plain axes of a part."""
    if isinstance(part, Relation):
        return []
    return [dim.size for dim in part.block.dims if dim.group is None]


def _role(graph: ParameterGraph, node_set: int) -> str:
    axis = graph.node_sets[node_set].axis
    if not axis:
        return "virtual"
    if any(graph.space.groups[group].permutable for group in axis):
        return "hidden"
    is_written = node_set in {part.written for part in graph.tensors}
    is_read = node_set in {part.read for part in graph.tensors}
    if is_written == is_read:
        return "fixed"
    return "input" if is_read else "output"


def _outward(plain: Sequence[int]) -> list[int]:
    """Places of the positions of a kernel in C order, sorted by their distance from its center."""
    offsets = [[at - size // 2 for at in range(size)] for size in plain]
    positions = list(product(*offsets))
    return sorted(
        range(len(positions)),
        key=lambda at: (max(map(abs, positions[at]), default=0), positions[at]),
    )


def _slots(graph: ParameterGraph) -> Iterator[tuple[Slot, ...]]:
    counts = Counter[tuple[int, int]]()
    for part in graph.vectors:
        power = next((dim.power for dim in part.block.dims if dim.group is not None), 0)
        place = counts[part.node_set, power]
        counts[part.node_set, power] += 1
        yield tuple((power, place, channel) for channel in range(part.shape[-1]))


def _constants(graph: ParameterGraph, roles: tuple[str, ...]) -> Float[Tensor, "V F"]:
    from_inputs = _distances(graph, roles, "input")
    to_outputs = _distances(graph, roles, "output")
    columns = []
    for index, node_set in enumerate(graph.node_sets):
        length = max(1, from_inputs[index] + to_outputs[index])
        of_set = torch.cat([_place(from_inputs[index] / length), _log_sizes(graph, index)])
        of_nodes = _waves(graph.orbit[node_set.nodes] - graph.orbit[node_set.start])
        columns.append(torch.cat([of_set.expand(node_set.size, -1), of_nodes], dim=1))
    return torch.cat(columns)


def _place(depth: float) -> Float[Tensor, "4"]:
    """Waves over a place between inputs, 0, and outputs, 1."""
    angle = torch.tensor(depth) * torch.pi
    return torch.stack([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()])


def _log_sizes(graph: ParameterGraph, node_set: int) -> Float[Tensor, "5"]:
    """Logs of sizes: of a node set, of what its nodes read and send, of graph and network."""
    reads = 1 + sum(prod(part.shape[1:]) for part in graph.edges if part.written == node_set)
    sends = 1 + sum(prod(part.shape[::2]) for part in graph.edges if part.read == node_set)
    size = graph.node_sets[node_set].size
    sizes = torch.tensor([size, reads, sends, len(graph.orbit), graph.space.num_params])
    return sizes.log() / log(1000)


def _waves(orbit: Int64[Tensor, " S"]) -> Float[Tensor, "S F"]:
    """Waves over the number of a node's orbit; zero where all nodes share one."""
    angles = orbit[:, None] / 4.0 ** torch.arange(WAVES)
    return torch.cat([angles.sin(), angles.cos()], dim=1) * bool(orbit.max())


def _distances(graph: ParameterGraph, roles: tuple[str, ...], role: str) -> list[int]:
    """Fewest parts from any node set of a role to each; 0 where there is no way."""
    distances = [0.0 if other == role else inf for other in roles]
    for _ in roles:
        for part in graph.edges:
            nearer = 1 + min(distances[part.written], distances[part.read])
            for end in (part.written, part.read):
                distances[end] = min(distances[end], nearer)
    return [int(distance) if distance < inf else 0 for distance in distances]


@dataclass(frozen=True)
class Vocabulary:
    """The kinds that a metanet has learned.

    Attributes:
        roles: Roles of node sets.
        edges: Kinds of edges, and the most channels of each.
        slots: Channels of vectors.
    """

    roles: tuple[str, ...]
    edges: Mapping[str, int]
    slots: tuple[Slot, ...]

    def check(self, space: WeightSpace) -> Description:
        """Describe a space, if all of its kinds are known.

        Args:
            space: The weight space.

        Returns:
            Its description.

        Raises:
            ValueError: If it has a kind of nodes, edges or vectors that is unknown, or a larger
                kernel; names the first.
        """
        description = describe(space)
        if unknown := sorted(set(description.roles) - set(self.roles)):
            raise ValueError(
                f"weight space with nodes {unknown[0]!r}: "
                f"expected one of those fitted, {list(self.roles)}"
            )
        for kind, part in zip(description.edges, description.graph.edges, strict=True):
            self._check_edges(kind, part)
        for slots, part in zip(description.slots, description.graph.vectors, strict=True):
            if unknown := sorted(set(slots) - set(self.slots)):
                raise ValueError(
                    f"tensor {part.block.tensor!r} has the channel (power, place, channel) "
                    f"{unknown[0]} of its nodes: expected one of those fitted, {list(self.slots)}"
                )
        return description

    def _check_edges(self, kind: str, part: EdgePart | Relation) -> None:
        is_tensor = isinstance(part, EdgePart)
        name = f"tensor {part.block.tensor!r}" if is_tensor else "a shared group"
        if kind not in self.edges:
            raise ValueError(
                f"{name} is of the kind {kind!r}: expected one of those fitted, {list(self.edges)}"
            )
        if part.shape[-1] > self.edges[kind]:
            raise ValueError(
                f"{name} has {part.shape[-1]} positions, "
                f"expected at most {self.edges[kind]} for {kind!r}"
            )

    def relabeled(self, description: Description) -> ParameterGraph:
        """A graph whose nodes, edges and vectors are numbered by kind, not within their space.

        The channels of a vector follow each other in `slots`, since these are sorted.

        Args:
            description: Description, checked.

        Returns:
            The graph with other `kinds`, `orbit` and `node_set`, and channels of vectors.
        """
        graph, known_kinds = description.graph, list(self.edges)
        kinds = tuple(known_kinds.index(kind) for kind in description.edges)
        vectors = tuple(
            replace(part, first_channel=self.slots.index(slots[0]))
            for part, slots in zip(graph.vectors, description.slots, strict=True)
        )
        roles = torch.tensor([self.roles.index(role) for role in description.roles])
        of_nodes = roles[graph.node_set]
        return replace(graph, vectors=vectors, kinds=kinds, orbit=of_nodes, node_set=of_nodes)


def vocabulary_of(spaces: Sequence[WeightSpace]) -> Vocabulary:
    """All kinds of some weight spaces, sorted: their order does not matter.

    Args:
        spaces: The spaces.

    Returns:
        The vocabulary.
    """
    roles: set[str] = set()
    slots: set[Slot] = set()
    edges = Counter[str]()
    for description in map(describe, spaces):
        roles.update(description.roles)
        slots.update(*description.slots)
        for kind, part in zip(description.edges, description.graph.edges, strict=True):
            edges[kind] = max(edges[kind], part.shape[-1])
    return Vocabulary(tuple(sorted(roles)), dict(sorted(edges.items())), tuple(sorted(slots)))
