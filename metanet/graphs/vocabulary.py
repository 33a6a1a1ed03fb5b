"""What parameter graphs of different weight spaces have in common, read off the spaces alone: no names of groups or tensors.

Kinds of node sets are their *roles*: `input` (not permutable, only read), `output` (not permutable,
    only written), `hidden`
(with a permutable group), `fixed` (any other), `virtual`. Kinds of edges are the roles they join
and how many plain axes they have:

    "hidden <- input 2"      a convolution from the inputs            "output <- hidden 0"      a matrix onto the outputs

Positions of a kernel are counted from its center outward: a matrix is the center of a 3 x 3 kernel,
which is the middle of a 5 x 5 one. A vector is known by the power of its scale and by its place
among the vectors of that power on its nodes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import log, prod

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.graphs.topology import NodeAxis, ParameterGraph, Part, parameter_graph
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
    >>> groups = {"x": NeuronGroup(2, permutable=False), "h": NeuronGroup(3), "y": NeuronGroup(1, permutable=False)}
    >>> found = describe(WeightSpace(groups, {"0": "h <- x 3 3", "1": "h", "2": "y <- h"}))
    >>> found.roles, found.edges
    (('input', 'hidden', 'output'), ('hidden <- input 2', 'output <- hidden 0'))
    """
    graph = parameter_graph(space)
    roles = tuple(_role(graph, at) for at in range(len(graph.node_sets)))
    kinds, orders = [], []
    for part in graph.edges:
        plain = (
            [dim.size for dim in part.block.dims if dim.group is None]
            if isinstance(part, Part)
            else []
        )
        kinds.append(
            f"{roles[part.written]} <- {roles[part.read or 0]} {len(plain) if isinstance(part, Part) else 'shared'}"
        )
        orders.append(_outward(plain))
    return Description(
        graph, roles, tuple(kinds), tuple(orders), tuple(_slots(graph)), _constants(graph, roles)
    )


def _role(graph: ParameterGraph, at: int) -> str:
    axis: NodeAxis = graph.node_sets[at].axis
    if not axis:
        return "virtual"
    if any(graph.space.groups[group].permutable for group in axis):
        return "hidden"
    parts = [part for part in graph.edges if isinstance(part, Part)]
    is_written, is_read = (
        any(part.written == at for part in parts),
        any(part.read == at for part in parts),
    )
    return (
        "input"
        if is_read and not is_written
        else "output"
        if is_written and not is_read
        else "fixed"
    )


def _outward(plain: Sequence[int]) -> list[int]:
    """Places of the positions of a kernel in C order, sorted by their distance from its center."""
    offsets = [[at - size // 2 for at in range(size)] for size in plain]
    positions = list(product(*offsets))
    return sorted(
        range(len(positions)),
        key=lambda at: (max(map(abs, positions[at]), default=0), positions[at]),
    )


def _slots(graph: ParameterGraph) -> Iterator[tuple[Slot, ...]]:
    seen: dict[tuple[int, int], int] = {}
    for part in graph.vectors:
        power = next((dim.power for dim in part.block.dims if dim.group is not None), 0)
        place = seen.get((part.written, power), 0)
        seen[part.written, power] = place + 1
        yield tuple((power, place, channel) for channel in range(part.shape[-1]))


def _constants(graph: ParameterGraph, roles: tuple[str, ...]) -> Float[Tensor, "V F"]:
    from_inputs, to_outputs = (_distances(graph, roles, role) for role in ("input", "output"))
    columns = []
    for at, own in enumerate(graph.node_sets):
        place = torch.tensor(from_inputs[at] / max(1, from_inputs[at] + to_outputs[at])) * torch.pi
        reads = sum(prod(part.shape[1:]) for part in graph.edges if part.written == at)
        sends = sum(part.shape[0] * prod(part.shape[2:]) for part in graph.edges if part.read == at)
        sizes = torch.tensor(
            [own.size, 1 + reads, 1 + sends, len(graph.orbit), graph.space.num_params]
        ).log() / log(1000)
        shared = torch.cat(
            [torch.stack([place.sin(), place.cos(), (2 * place).sin(), (2 * place).cos()]), sizes]
        )
        orbit = graph.orbit[own.nodes] - graph.orbit[own.start]
        angles = orbit[:, None] / 4.0 ** torch.arange(WAVES)
        waves = torch.cat([angles.sin(), angles.cos()], dim=1) * (1 if int(orbit.max()) else 0)
        columns.append(torch.cat([shared.expand(own.size, -1), waves], dim=1))
    return torch.cat(columns)


def _distances(graph: ParameterGraph, roles: tuple[str, ...], role: str) -> list[int]:
    """Fewest parts from any node set of a role to each; 0 where there is no way."""
    found = {at: 0 for at, own in enumerate(roles) if own == role}
    links = [{part.written, part.read or 0} for part in graph.edges]
    border = list(found)
    while border:
        at = border.pop(0)
        near = {other for link in links if at in link for other in link} - found.keys()
        found |= dict.fromkeys(near, found[at] + 1)
        border += sorted(near)
    return [found.get(at, 0) for at in range(len(roles))]


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
        found = describe(space)
        for role in found.roles:
            if role not in self.roles:
                raise ValueError(
                    f"weight space with nodes {role!r}: expected one of those fitted, {list(self.roles)}"
                )
        for kind, part in zip(found.edges, found.graph.edges, strict=True):
            tensor = f"tensor {part.block.tensor!r}" if isinstance(part, Part) else "a shared group"
            if kind not in self.edges:
                raise ValueError(
                    f"{tensor} is of the kind {kind!r}: expected one of those fitted, {list(self.edges)}"
                )
            if part.shape[-1] > self.edges[kind]:
                raise ValueError(
                    f"{tensor} has {part.shape[-1]} positions, expected at most {self.edges[kind]} for {kind!r}"
                )
        for slots, part in zip(found.slots, found.graph.vectors, strict=True):
            if unknown := sorted(set(slots) - set(self.slots)):
                raise ValueError(
                    f"tensor {part.block.tensor!r} has the channel (power, place, channel) {unknown[0]} of its nodes: "
                    f"expected one of those fitted, {list(self.slots)}"
                )
        return found

    def relabeled(self, found: Description) -> ParameterGraph:
        """A graph whose nodes and edges are numbered by kind, not within their weight space.

        Args:
            found: Description, checked.

        Returns:
            The graph with other `orbit`, `node_set` and `edge_type`.
        """
        roles = torch.tensor([self.roles.index(role) for role in found.roles])
        kinds = torch.tensor(
            [list(self.edges).index(kind) for kind in found.edges], dtype=torch.int64
        )
        of_nodes = roles[found.graph.node_set]
        return replace(
            found.graph, orbit=of_nodes, node_set=of_nodes, edge_type=kinds[found.graph.edge_type]
        )


def vocabulary_of(spaces: Sequence[WeightSpace]) -> Vocabulary:
    """All kinds of some weight spaces, sorted: their order does not matter.

    Args:
        spaces: The spaces.

    Returns:
        The vocabulary.
    """
    found = [describe(space) for space in spaces]
    edges: dict[str, int] = {}
    for own in found:
        for kind, part in zip(own.edges, own.graph.edges, strict=True):
            edges[kind] = max(edges.get(kind, 0), part.shape[-1])
    slots = {slot for own in found for part in own.slots for slot in part}
    roles = {role for own in found for role in own.roles}
    return Vocabulary(tuple(sorted(roles)), dict(sorted(edges.items())), tuple(sorted(slots)))
