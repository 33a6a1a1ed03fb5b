"""Tensors cut along their direct sums, so that every axis of a piece is one group of neurons or a plain axis."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

from zoo.weight_space import Axis, Factor, Label, Sum, WeightSpace

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
    """

    tensor: str
    dims: tuple[Dim, ...]
    rank: int
    axes: tuple[int, ...]
    steps: tuple[Step, ...] = ()

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
    found = []
    for name in space.tensors:
        pattern = space.pattern(name)
        signed = [
            (axis, sign, at)
            for at, (axis, sign) in enumerate(zip(pattern.axes, pattern.powers, strict=True))
        ]
        found += [
            Block(name, dims, len(signed), axes, steps)
            for dims, axes, steps in _cut(space, signed, ())
        ]
    return found


def _cut(
    space: WeightSpace, axes: Sequence[tuple[Axis | Factor, int, int]], steps: tuple
) -> Iterator[tuple[tuple[Dim, ...], tuple[int, ...], tuple]]:
    """Resolve the first axis that is a product or a sum, then the rest."""
    for at, (axis, sign, origin) in enumerate(axes):
        before, after = axes[:at], axes[at + 1 :]
        if isinstance(axis, tuple):
            split = (
                steps
                if len(axis) == 1
                else (*steps, (at, tuple(space.size((factor,)) for factor in axis)))
            )
            yield from _cut(
                space, [*before, *((factor, sign, origin) for factor in axis), *after], split
            )
            return
        if isinstance(axis, Sum):
            start = 0
            for term in axis.terms:
                length = space.size(term)
                yield from _cut(
                    space, [*before, (term, sign, origin), *after], (*steps, (at, start, length))
                )
                start += length
            return
    yield (
        tuple(_dim(space, axis, sign) for axis, sign, _ in axes),
        tuple(origin for _, _, origin in axes),
        steps,
    )


def _dim(space: WeightSpace, factor: Axis | Factor, sign: int) -> Dim:
    if isinstance(factor, Label):
        return Dim(space.groups[factor.group].size, factor.group, sign * factor.power)
    return Dim(factor if isinstance(factor, int) else 1)
