"""What a parameter graph is made of: sets of nodes, and tensors as features of nodes and edges."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor

from zoo.symmetry.blocks import Block

NodeAxis = tuple[str, ...]


@dataclass(frozen=True)
class NodeSet:
    """The nodes of one node axis.

    Attributes:
        axis: Neuron groups whose product the nodes are; empty for the virtual node.
        start: First node.
        size: Number of nodes.
        channels: Features of a node: channels of all its vectors together.
    """

    axis: NodeAxis
    start: int
    size: int
    channels: int

    @property
    def nodes(self) -> slice:
        """The nodes of the set, out of those of the graph."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class NodePart:
    """A block of a tensor whose entries are features of nodes.

    Attributes:
        block: The block.
        order: Its axes, those of nodes first, then plain ones.
        shape: `(V, C)`.
        node_set: Place of the node set in the graph.
        first_channel: First of the channels of the set that it fills.
    """

    block: Block
    order: tuple[int, ...]
    shape: tuple[int, ...]
    node_set: int
    first_channel: int

    @property
    def channels(self) -> slice:
        """The channels of the node set that it fills."""
        return slice(self.first_channel, self.first_channel + self.shape[-1])

    def view(self, params: Mapping[str, Tensor]) -> Shaped[Tensor, "N V C"]:
        """The features of N networks, from tensors `[N, *shape]`."""
        return _arranged(self, params)


@dataclass(frozen=True)
class EdgePart:
    """A block of a tensor whose entries are features of edges.

    Attributes:
        block: The block.
        order: Its axes, written ones first, then read ones, then plain ones.
        shape: `(W, R, C)`.
        written: Place of the written node set in the graph.
        read: Place of the read node set.
    """

    block: Block
    order: tuple[int, ...]
    shape: tuple[int, ...]
    written: int
    read: int

    def view(self, params: Mapping[str, Tensor]) -> Shaped[Tensor, "N W R C"]:
        """The features of N networks, from tensors `[N, *shape]`."""
        return _arranged(self, params)


def _arranged(part: NodePart | EdgePart, params: Mapping[str, Tensor]) -> Tensor:
    """The block of each network, axes in the order of the part and merged to its shape."""
    block = part.block.view(params[part.block.tensor])
    return block.permute(0, *(1 + axis for axis in part.order)).reshape(-1, *part.shape)


@dataclass(frozen=True, eq=False)
class Relation:
    """Edges between node sets that share groups; the same in every network.

    Attributes:
        agree: 1 where the shared groups agree, `[W, R, 1]`.
        written: Place of the written node set in the graph.
        read: Place of the read node set.
    """

    agree: Float[Tensor, "W R 1"]
    written: int
    read: int

    @property
    def shape(self) -> tuple[int, ...]:
        """`(W, R, 1)`."""
        return tuple(self.agree.shape)

    def view(self, params: Mapping[str, Tensor]) -> Float[Tensor, "N W R 1"]:
        """The features of N networks, which the params only count.

        Args:
            params: Tensors `[N, *shape]`.

        Returns:
            `[N, W, R, 1]`.
        """
        like = next(iter(params.values()))
        return self.agree.to(like).expand(len(like), *self.shape)
