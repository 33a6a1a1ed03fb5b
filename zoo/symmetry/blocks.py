"""Tensors cut along their direct sums: every axis of a block is a group of neurons or plain."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from jaxtyping import Shaped
from torch import Tensor

from zoo.pattern import Axis, Factor, Label, Sum
from zoo.weight_space import WeightSpace

Step = tuple[int, tuple[int, ...]] | tuple[int, int, int]


@dataclass(frozen=True)
class Dim:
    """One axis of a block.

    Attributes:
        size: Its length.
        group: The group whose neurons stand along it, None for a plain axis.
        power: Power of the group's scale that acts on it, negative where the group is read; 0 for a
            plain axis.
    """

    size: int
    group: str | None = None
    power: int = 0


@dataclass(frozen=True)
class Block:
    """A part of a tensor, as an array with one axis for each factor of its pattern.

    Attributes:
        tensor: Name of the tensor.
        dims: Its axes.
        rank: Number of axes of the tensor.
        axes: For each of `dims`, the axis of the tensor that it is a factor of, counted in the
            order of the tensor.
        steps: How to get there: `(axis, sizes)` splits an axis, `(axis, start, length)` keeps a
            part of it.
        written: Places of the axes that the tensor writes.
    """

    tensor: str
    dims: tuple[Dim, ...]
    rank: int
    axes: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    written: tuple[int, ...] = field(default=(), repr=False)

    @property
    def read(self) -> tuple[int, ...]:
        """Places of the axes that the tensor reads."""
        return tuple(i for i in range(len(self.dims)) if i not in self.written)

    def view(self, tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The block of a tensor, sharing its memory.

        Args:
            tensor: `[*batch, *shape]`.

        Returns:
            `[*batch, *sizes]` with the sizes of `dims`.
        """
        lead = tensor.dim() - self.rank
        for step in self.steps:
            if len(step) == 2:
                tensor = tensor.unflatten(lead + step[0], step[1])
            else:
                tensor = tensor.narrow(lead + step[0], step[1], step[2])
        return tensor

    def entries(self, tensor: Shaped[Tensor, "..."], kept: Sequence[int]) -> Shaped[Tensor, "..."]:
        """The block of a tensor with some axes first, all others flattened to one.

        Args:
            tensor: `[*batch, *shape]`.
            kept: Which of `dims` stay, in the order that they get.

        Returns:
            `[*batch, *kept, rest]`; the rest is of length 1 if all stay.
        """
        block = self.view(tensor)
        lead = block.dim() - len(self.dims)
        others = [i for i in range(len(self.dims)) if i not in kept]
        moved = block.permute(*range(lead), *(lead + i for i in (*kept, *others)))
        return moved.flatten(lead + len(kept)) if others else moved[..., None]


def cut_blocks(space: WeightSpace) -> list[Block]:
    """Cut all tensors of a space: together, the blocks hold every entry once.

    Args:
        space: The weight space.

    Returns:
        The blocks, in the order of the tensors; only a tensor with a direct sum has more than one.

    >>> from zoo.weight_space import NeuronGroup
    >>> space = WeightSpace({"a": NeuronGroup(2), "b": NeuronGroup(3)}, {"w": "(a + b 4) <- b"})
    >>> [[dim.size for dim in block.dims] for block in cut_blocks(space)]
    [[2, 3], [3, 4, 3]]
    """
    cut = []
    for name in space.tensors:
        pattern = space.pattern(name)
        axes = tuple((axis, origin) for origin, axis in enumerate(pattern.axes))
        for steps, parts in _parts(space, (), axes):
            origins = tuple(origin for _, origin in parts)
            dims = tuple(_dim(space, factor, pattern.powers[origin]) for factor, origin in parts)
            written = tuple(i for i, origin in enumerate(origins) if pattern.powers[origin] > 0)
            cut.append(Block(name, dims, len(pattern.axes), origins, steps, written))
    return cut


_Part = tuple[Axis | Factor, int]
"""What is left of an axis to resolve, and which axis of the tensor that is."""

Signature = tuple[tuple[str, int], ...]
"""Of some axes of a block the group, and a number that tells how it acts there."""


def alike_blocks(
    space: WeightSpace, how: Callable[[Dim], int | None]
) -> dict[Signature, list[tuple[Block, list[int]]]]:
    """The blocks of a space by the groups that act on their axes, and by how they do.

    Args:
        space: The weight space.
        how: A number that tells how the group of an axis acts there, None if it does not.

    Returns:
        For each signature, sorted, its blocks and the places of the axes that it is about; blocks
        on which no group acts are left out.
    """
    alike: dict[Signature, list[tuple[Block, list[int]]]] = {}
    for block in cut_blocks(space):
        acting = [(dim.group, how(dim), i) for i, dim in enumerate(block.dims)]
        axes = sorted((str(group), number, i) for group, number, i in acting if number is not None)
        if axes:
            signature = tuple((group, number) for group, number, _ in axes)
            alike.setdefault(signature, []).append((block, [i for _, _, i in axes]))
    return alike


def _parts(
    space: WeightSpace, steps: tuple[Step, ...], axes: tuple[_Part, ...]
) -> Iterator[tuple[tuple[Step, ...], tuple[_Part, ...]]]:
    """Resolve the first axis that is a product or a sum, then the rest: steps and axes of parts."""
    for at, (axis, origin) in enumerate(axes):
        if isinstance(axis, tuple | Sum):
            for step, factors in _resolved(space, at, axis):
                parts = tuple((factor, origin) for factor in factors)
                yield from _parts(space, (*steps, *step), (*axes[:at], *parts, *axes[at + 1 :]))
            return
    yield steps, axes


def _resolved(
    space: WeightSpace, at: int, axis: Axis | Sum
) -> Iterator[tuple[tuple[Step, ...], tuple[Axis | Factor, ...]]]:
    """The parts of a product, which is one, or of a direct sum: how to get there, what it is."""
    if isinstance(axis, tuple):
        sizes = tuple(space.size((factor,)) for factor in axis)
        yield ((at, sizes),) if len(axis) > 1 else (), axis
    else:
        start = 0
        for term in axis.terms:
            length = space.size(term)
            yield ((at, start, length),), (term,)
            start += length


def _dim(space: WeightSpace, factor: Axis | Factor, sign: int) -> Dim:
    if isinstance(factor, Label):
        return Dim(space.groups[factor.group].size, factor.group, sign * factor.power)
    return Dim(factor if isinstance(factor, int) else 1)
