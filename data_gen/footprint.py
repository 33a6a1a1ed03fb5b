"""How much memory networks need while they train or run, in bytes of tensors."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_gen.training.runs import TrainingRuns, draw_view
from data_gen.training.trainer import STEPS_AHEAD, Trainer
from zoo.params import Params


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make while it is active, until they are freed.

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
            if (
                isinstance(leaf, Tensor)
                and (storage := leaf.untyped_storage())._cdata not in self._sizes
            ):
                self._sizes[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._freed, storage._cdata)
        return result

    def _freed(self, identity: int) -> None:
        self._now -= self._sizes.pop(identity, 0)


def training_bytes(trainer: Trainer, runs: TrainingRuns, params: Params) -> int:
    """Bytes of tensors that networks need while they train, at most: state, batches, activations and gradients.

    Found by taking one step.

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
