"""Many networks of an architecture at once, or one after the other where that cannot be had."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from zoo.architectures.base import Architecture


def over_networks(
    architecture: Architecture, function: Callable[..., Any], in_dims: tuple[int | None, ...]
) -> Callable[..., Any]:
    """A function of one network as one of many.

    Args:
        architecture: The architecture; it says whether its networks run in lock step.
        function: From arguments of one network to tensors.
        in_dims: Of each argument 0 if it has networks on its first axis, None if it is for all.

    Returns:
        The function; its results have networks on the first axis.
    """
    if architecture.in_lock_step:
        return vmap(function, in_dims)
    return partial(_one_by_one, function, in_dims)


def _one_by_one(
    function: Callable[..., Any], in_dims: tuple[int | None, ...], *arguments: Any
) -> Any:
    of_each = [argument for argument, dim in zip(arguments, in_dims, strict=True) if dim == 0]
    results = []
    for i in range(len(tree_leaves(of_each)[0])):
        row = partial(tree_map, lambda tensor, i=i: tensor[i])
        pairs = zip(arguments, in_dims, strict=True)
        results.append(function(*(row(of) if dim == 0 else of for of, dim in pairs)))
    return tree_map(lambda *tensors: torch.stack(tensors), *results)
