"""Conserved quantities along the training of a plain PyTorch module, with any optimizer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.conservation.laws import Law
from zoo.conservation.quantities import measure
from zoo.params import Params, mapped, stack


class Tracker:
    """Records quantities and residuals of laws while a module trains.

    Call `step` after `loss.backward()` and before the optimizer's own step: quantities and
    gradients then belong to the same parameters. Clipping or scaling of gradients does not matter,
    nor does their accumulation over minibatches.

    Args:
        laws: The laws, such as `laws(trace(module, inputs).space)`; their tensors are named as the
            module's parameters are.
        every: Record one call in so many, the first one among them. A record costs up to as much as
            a training step of a perceptron (`benchmarks/tracker_cost.py`).

    Raises:
        ValueError: If `every` is below 1.

    >>> from zoo.conservation.laws import declared_laws
    >>> from zoo.tracing.tracer import trace
    >>> module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> tracker = Tracker(declared_laws(trace(module, torch.ones(2, 4)).space), every=1)
    >>> loss = module(torch.ones(2, 4)).square().mean()
    >>> loss.backward()
    >>> tracker.step(module, loss)
    >>> tracker.quantities["h1.balance"].shape, bool(tracker.residuals["h1.balance"].max() < 1e-5)
    (torch.Size([1, 8]), True)
    """

    def __init__(self, laws: Sequence[Law], every: int = 10):
        if every < 1:
            raise ValueError(f"Tracker: expected every >= 1, got {every}")
        self._laws, self._every, self._calls = tuple(laws), every, 0
        self._records: list[tuple[int, Tensor, Params, Params]] = []

    @torch.no_grad()
    def step(self, model: nn.Module, loss: Tensor) -> None:
        """Record one step.

        Args:
            model: The module, with gradients; a parameter without one has gradient 0.
            loss: The loss that they are gradients of, a scalar.

        Raises:
            ValueError: If the module lacks a parameter that a law is about.
        """
        self._calls += 1
        if (self._calls - 1) % self._every:
            return
        parameters = dict(model.named_parameters())
        params = mapped(Tensor.detach, parameters)
        gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
        measured = measure(self._laws, params, gradients)
        self._records.append((self._calls - 1, loss.detach().clone(), *measured))

    @property
    def steps(self) -> list[int]:
        """Number of the call, from 0, of each record."""
        return [call for call, *_ in self._records]

    @property
    def quantities(self) -> dict[str, Float[Tensor, "T ..."]]:
        """For each law by name `[T, *law.shape]`."""
        return _stacked([quantities for *_, quantities, _ in self._records])

    @property
    def residuals(self) -> dict[str, Float[Tensor, "T ..."]]:
        """For each law by name `[T, *law.shape]`, of a matrix law `[T, *heads]`."""
        return _stacked([residuals for *_, residuals in self._records])

    @property
    def losses(self) -> Float[Tensor, " T"]:
        """The losses."""
        losses = [loss for _, loss, *_ in self._records]
        return torch.stack(losses) if losses else torch.zeros(0)


def _stacked(records: list[Params]) -> dict[str, Float[Tensor, "T ..."]]:
    return stack(records) if records else {}
