"""How much memory networks need while they train or run, and how many train together."""

import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_gen.training.runs import TrainingRuns, draw_view
from data_gen.training.trainer import STEPS_AHEAD, Trainer
from zoo.params import Params

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
    """How many networks train in lock step.

    As many as fit into the caches of a core, or into the free memory of a GPU.

    Args:
        bytes_per_network: What one network needs while it trains, as `training_bytes` says.
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
            f"{size} networks in lock step do not fit into the memory of the device; "
            f"trying {smaller}",
            stacklevel=2,
        )
        size = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, until they are freed.

    Working memory inside an operation, as of a convolution, is not seen; nor is what an allocator
    cannot use again.

    Attributes:
        peak: The largest number of bytes at once.
    """

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count its results."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        if identity in self._sizes:
            return
        self._sizes[identity] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._freed, identity)

    def _freed(self, identity: int) -> None:
        self._now -= self._sizes.pop(identity, 0)


def training_bytes(trainer: Trainer, runs: TrainingRuns, params: Params) -> int:
    """Bytes of tensors that networks need while they train, at most.

    State, batches, activations and gradients, measured in one step.

    Args:
        trainer: Who trains, uncompiled. A compiled step needs less.
        runs: The networks; one tells what each of any number needs, to some percent.
        params: Their initial parameters `[N, *shape]`.

    Returns:
        Bytes; what the task holds does not count.
    """
    with LiveBytes() as live:
        state, view = trainer.start(runs, params), draw_view(runs, trainer.task, trainer.seed)
        batches = trainer.batches(runs, view, state, STEPS_AHEAD)
        trainer.advance(runs, view, state, 1)
    del batches  # kept until here, as `advance` keeps the batches of all steps
    return live.peak


def running_bytes(run: Callable[[], Any]) -> int:
    """Bytes of tensors that a function makes, at most at once.

    Args:
        run: The function.

    Returns:
        Bytes.
    """
    with LiveBytes() as live:
        run()
    return live.peak
