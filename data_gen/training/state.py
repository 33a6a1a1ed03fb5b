"""Where the training of a chunk of networks stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.utils._pytree import tree_map

from zoo.params import Params


@dataclass
class State:
    """Where training stands.

    Attributes:
        params: Effective parameters `[N, *shape]`; of a diverged network the last finite ones.
        slots: Optimizer state of each parameter; running statistics have none.
        step: Steps taken by each network, on the CPU so that nobody has to wait for the device;
            goes on after its end.
        diverged_at: Step at which a network's parameters stopped being finite, -1 while they are,
            `[N]`.
    """

    params: Params
    slots: dict[str, tuple[Tensor, ...]]
    step: Int64[Tensor, " N"]
    diverged_at: Int64[Tensor, " N"]

    def take(self, rows: Int64[Tensor, " M"]) -> "State":
        """The state of some of the networks, a copy.

        Args:
            rows: Which, on the CPU.

        Returns:
            Their state.
        """
        return _each(lambda tensor: tensor[rows.to(tensor.device)], self)

    def join(self, other: "State") -> "State":
        """Both states as one, these networks first."""
        return _each(lambda *tensors: torch.cat(tensors), self, other)

    def copy(self) -> "State":
        """A copy that shares no memory."""
        return _each(torch.clone, self)

    def restore(self, saved: "State") -> None:
        """Go back to an earlier copy, in place."""
        _each(Tensor.copy_, self, saved)


def _each(function: Callable[..., Tensor], *states: State) -> State:
    """The state of what a function makes of the same tensor of all states."""
    trees = [(state.params, state.slots, state.step, state.diverged_at) for state in states]
    return State(*tree_map(function, *trees))


def finite(params: Params) -> Bool[Tensor, " N"]:
    """Which networks have only finite parameters."""
    return torch.stack(
        [torch.isfinite(tensor).reshape(len(tensor), -1).all(1) for tensor in params.values()]
    ).all(0)


def concatenate(chunks: Sequence[Params]) -> Params:
    """Networks of several chunks as one, in the order of the chunks."""
    return tree_map(lambda *tensors: torch.cat(tensors), *chunks)
