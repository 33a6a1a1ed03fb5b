"""How many networks train together, and whether compiling their step pays."""

import math
import shutil
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

# Beyond the caches of a core, lock step gains nothing from more networks (benchmarks/train_networks.py).
_CPU_WORKING_SET = 6 * 2**20
_CUDA_SHARE = 0.25
# A compiled step saves 15 to 30 microseconds a network and step and takes 5 to 20 seconds to compile.
_NETWORK_STEPS_WORTH_COMPILING = 200_000


def chunk_size(bytes_per_network: int, device: torch.device, rows: int) -> int:
    """How many networks train in lock step: as many as fit into the caches of a core, or into the free memory of a GPU.

    Args:
        bytes_per_network: What one network needs while it trains, as `footprint.training_bytes` says.
        device: Where they train.
        rows: Networks to be trained in all; if there are several rounds, they are made equally large.

    Returns:
        Number of networks, at least 1.
    """
    budget = int(_CUDA_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else _CPU_WORKING_SET
    fitting = max(1, budget // bytes_per_network)
    return math.ceil(rows / math.ceil(rows / fitting))


Result = TypeVar("Result")


def halve_until_it_fits(run: Callable[[int], Result], size: int) -> Result:
    """Run with smaller chunks for as long as the memory of the device is too small.

    Args:
        run: What to run, given the number of networks in lock step; it starts from the beginning each time.
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
        warnings.warn(f"{size} networks in lock step do not fit into the memory of the device; trying {smaller}", stacklevel=2)
        size = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def compilation_pays(network_steps: float, variants: int) -> bool:
    """Whether a population is large enough for compiled steps.

    Args:
        network_steps: Steps of all its networks together.
        variants: Different steps to compile (optimizers times batch sizes).

    Returns:
        Whether it is.
    """
    return network_steps >= variants * _NETWORK_STEPS_WORTH_COMPILING


def compiler_works(device: torch.device) -> bool:
    """Whether `torch.compile` can be used on this machine; warns with the reason if it cannot.

    Args:
        device: Where networks train.

    Returns:
        Whether a small function compiled and ran.
    """
    reason = ""
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        reason = "there is no C++ compiler"
    else:
        try:
            torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(64, device=device))
        except Exception as error:  # whatever the tool chain of this machine raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if reason:
        warnings.warn(
            f"torch.compile does not work here ({reason}); networks train uncompiled, 2 to 3 times slower", stacklevel=2
        )
    return not reason
