"""The boundary: tensors and arrays that people hold become those that we read, or are refused.

Tensors and numpy arrays may be of any floating type, float16 to float64. Whole numbers are not
taken: rounded weights are another network.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from zoo.params import Params

COUNTER = "num_batches_tracked"
"""What modules of torch count in training, and no function of theirs reads."""


def counts_batches(name: str) -> bool:
    """Whether an entry of a state dict counts batches."""
    return name.rpartition(".")[2] == COUNTER


def tensors_of(given: object, dtype: torch.dtype, what: str, expected: str) -> Params:
    """The tensors of a mapping by their names, without what counts batches.

    Args:
        given: A mapping of tensors or arrays by name.
        dtype: Floating type of what is returned.
        what: What it is, for errors.
        expected: What would be right, for errors.

    Returns:
        Tensors of that type; those that are of it already are not copied.

    Raises:
        ValueError: If it is something else, or holds something else.
    """
    if not isinstance(given, Mapping):
        hint = "; take its state_dict()" if isinstance(given, nn.Module) else ""
        raise ValueError(f"{what}: expected {expected}; got {type(given).__name__}{hint}")
    return {
        str(name): tensor_of(value, dtype, f"{what}, {name!r:.200}")
        for name, value in given.items()
        if not counts_batches(str(name))
    }


def tensor_of(value: object, dtype: torch.dtype, what: str) -> Tensor:
    """One tensor of a floating type.

    Args:
        value: A dense tensor, or an array, of a floating type.
        dtype: Floating type of what is returned.
        what: What it is, for errors.

    Returns:
        The tensor, detached.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.dtype.itemsize <= 8:
        native = value.astype(value.dtype.newbyteorder("="), order="C", subok=False)
        return torch.from_numpy(native).to(dtype)
    if (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout == torch.strided
        and not value.is_meta
    ):
        return value.detach().to(dtype)
    kind = f" of {value.dtype}" if isinstance(value, Tensor | np.ndarray) else ""
    raise ValueError(
        f"{what}: expected a dense tensor or numpy array of a floating type, float16 to float64, "
        f"got {type(value).__name__}{kind}"
    )
