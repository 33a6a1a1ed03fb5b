"""Which examples of a data set are the parts of a task."""

from dataclasses import replace

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_map

from data_gen.rng import generator
from data_gen.tasks.data import Part


def first_examples(
    x: Shaped[Tensor, "X ..."], y: Shaped[Tensor, "X ..."], train_size: int, test_size: int
) -> tuple[Part, Part]:
    """The first examples for training and the next ones for the test.

    Args:
        x: Inputs.
        y: Targets.
        train_size: How many are for training.
        test_size: How many are for the test.

    Returns:
        Both parts.

    Raises:
        ValueError: If there are not so many.
    """
    parts = []
    start = 0
    # One image at least is left for the test.
    for option, size, rest in (("train_size", train_size, 1), ("test_size", test_size, 0)):
        stop, most = start + size, len(x) - start - rest
        if not 1 <= size <= most:
            raise ValueError(f"task.{option}: expected 1 to {most} images, found {size}")
        parts.append(Part(x[start:stop], y[start:stop]))
        start = stop
    return parts[0], parts[1]


def some_examples(part: Part, name: str, size: int | None, seed: int) -> Part:
    """Some examples of a part in random order.

    Args:
        part: The part.
        name: `"train"` or `"test"`.
        size: How many; None for all, in their own order.
        seed: Seed of the choice.

    Returns:
        The examples.

    Raises:
        ValueError: If there are not so many.
    """
    if size is None:
        return part
    if size > len(part):
        raise ValueError(f"task.{name}_size: expected 1 to {len(part)} examples, found {size}")
    rows = torch.randperm(len(part), generator=generator(seed, "file", name))[:size]
    axis = 1 if part.own_inputs else 0
    x = tree_map(lambda values: values.index_select(axis, rows), part.x)
    y = part.y.index_select(1 if part.per_network else 0, rows)
    return replace(part, x=x, y=y)
