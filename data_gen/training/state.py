"""Where the training of a chunk of networks stands."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

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
        here = rows.to(self.diverged_at.device)
        slots = {name: tuple(slot[here] for slot in slots) for name, slots in self.slots.items()}
        return State(
            {n: p[here] for n, p in self.params.items()},
            slots,
            self.step[rows],
            self.diverged_at[here],
        )

    def join(self, other: "State") -> "State":
        """Both states as one, these networks first."""
        slots = {
            name: tuple(map(_cat, mine, other.slots[name])) for name, mine in self.slots.items()
        }
        params = {name: _cat(mine, other.params[name]) for name, mine in self.params.items()}
        return State(
            params, slots, _cat(self.step, other.step), _cat(self.diverged_at, other.diverged_at)
        )

    def copy(self) -> "State":
        """A copy that shares no memory."""
        slots = {name: tuple(slot.clone() for slot in slots) for name, slots in self.slots.items()}
        return State(
            {n: p.clone() for n, p in self.params.items()},
            slots,
            self.step.clone(),
            self.diverged_at.clone(),
        )

    def restore(self, saved: "State") -> None:
        """Go back to an earlier copy, in place."""
        for name, tensor in saved.params.items():
            self.params[name].copy_(tensor)
            for slot, old in zip(self.slots[name], saved.slots[name], strict=True):
                slot.copy_(old)
        self.step.copy_(saved.step)
        self.diverged_at.copy_(saved.diverged_at)


def finite(params: Params) -> Bool[Tensor, " N"]:
    """Which networks have only finite parameters."""
    return torch.stack(
        [torch.isfinite(tensor).reshape(len(tensor), -1).all(1) for tensor in params.values()]
    ).all(0)


def _cat(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first, second])
