"""How many networks train together."""

import math
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

# Beyond the caches of a core, lock step gains nothing from more networks
# (benchmarks/train_networks.py).
_CPU_WORKING_SET = 6 * 2**20
_CUDA_SHARE = 0.25
_STEP_OVERHEAD = (
    6  # what a compiled step costs besides its networks, in networks (small MLPs on a core)
)


def chunk_size(
    bytes_per_network: int, device: torch.device, rows: int, compiled: bool = False
) -> int:
    """How many networks train in lock step: as many as fit into the caches of a core, or into the free memory of a GPU.

    Args:
        bytes_per_network: What one network needs while it trains, as `footprint.training_bytes`
            says.
        device: Where they train.
        rows: Networks to be trained in all; if there are several rounds, they are made equally
            large.
        compiled: Whether each number of networks costs a compilation, so that it must be one of
            few.

    Returns:
        Number of networks, from 1 to `rows`.
    """
    budget = (
        int(_CUDA_SHARE * torch.cuda.mem_get_info(device)[0])
        if device.type == "cuda"
        else _CPU_WORKING_SET
    )
    fitting = max(1, budget // bytes_per_network)
    if not compiled:
        return math.ceil(rows / math.ceil(rows / fitting))
    sizes = {1, *(round(fitting / 2 ** (k / 2)) for k in range(2 * fitting.bit_length()))}
    return min(
        (size for size in sizes if 1 <= size <= rows),
        key=lambda size: math.ceil(rows / size) * (size + _STEP_OVERHEAD),
    )


Result = TypeVar("Result")


def halve_until_it_fits(run: Callable[[int], Result], size: int) -> Result:
    """Run with smaller chunks for as long as the memory of the device is too small.

    Args:
        run: What to run, given the number of networks in lock step; it starts from the beginning
            each time.
        size: Number of networks to try first.

    Returns:
        What `run` returns.

    Raises:
        torch.OutOfMemoryError: If one network is too many.
    """
    while True:
        try:
            return run(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        smaller = math.ceil(size / 2)
        warnings.warn(
            f"{size} networks in lock step do not fit into the memory of the device; trying {smaller}",
            stacklevel=2,
        )
        size = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
