"""Checkpoints of networks that train in lock step."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor
from torch.utils._pytree import tree_map

from data_gen.training.state import State
from zoo.params import Params


class Recorder:
    """Keeps parameters at chosen steps of each network; it may be shown a step twice.

    Args:
        steps: Steps to keep `[N, T]`.
        params: Parameters `[N, *shape]`, for their shapes.
        dtype: Floating type to keep them in.
    """

    def __init__(self, steps: Int64[Tensor, "N T"], params: Params, dtype: torch.dtype):
        self._steps = steps
        self._dtype = dtype
        self.params = {
            n: torch.empty(*steps.shape, *p.shape[1:], dtype=dtype) for n, p in params.items()
        }

    def see(self, rows: Sequence[int], state: State) -> None:
        """Keep the networks whose turn it is.

        Args:
            rows: Which networks these are.
            state: Where they stand.
        """
        self._record(rows, state, self._steps[rows] == state.step[:, None])

    def end(self, rows: Sequence[int], state: State) -> None:
        """Keep networks that have ended as what they are from now on.

        A diverged one has not reached all its steps.

        Args:
            rows: Which networks these are.
            state: Where they have ended.
        """
        diverged_at = state.diverged_at.cpu()
        from_now_on = torch.where(diverged_at < 0, state.step, diverged_at)
        self._record(rows, state, self._steps[rows] >= from_now_on[:, None])

    def _record(self, rows: Sequence[int], state: State, due: Bool[Tensor, "n T"]) -> None:
        lanes, columns = due.nonzero(as_tuple=True)
        if len(lanes):
            kept = torch.tensor(rows)[lanes]
            for name, tensor in state.params.items():
                self.params[name][kept, columns] = (
                    tensor[lanes.to(tensor.device)].cpu().to(self._dtype)
                )


def checkpoint_steps(count: int, steps: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, "N T"]:
    """Steps at which each network is kept: `count` of them, evenly spaced from 0 to its own end."""
    return np.round(np.linspace(0, 1, count)[None] * steps[:, None]).astype(np.int64)


def at_checkpoints(
    measure: Callable[[Params], Params], trajectory: Params, like: Tensor
) -> dict[str, Shaped[Tensor, "N T ..."]]:
    """What a function says of networks at each of their checkpoints.

    Args:
        measure: From parameters `[N, *shape]` to results `[N, ...]`.
        trajectory: Parameters `[N, T, *shape]`.
        like: Has the device and the floating type for which `measure` is made.

    Returns:
        Its results by name, on the CPU.
    """
    moments = []
    for moment in range(next(iter(trajectory.values())).shape[1]):
        params = {name: tensor[:, moment].to(like) for name, tensor in trajectory.items()}
        moments.append(measure(params))
    return tree_map(lambda *values: torch.stack(values, dim=1).cpu(), *moments)
