"""Time symmetry: what gradient flow loses in loss is the integral of its squared velocity.

    L(theta(0)) - L(theta(T)) = integral from 0 to T of |theta'(t)|^2 dt

Statement: the energy `L(theta(t)) + integral to t of |theta'|^2` is constant along gradient flow,
    whatever network and loss.
Proof: theta' = -grad L does not name the time, so what it conserves is an energy;
    d/dt L(theta(t)) = <grad L, theta'> = -|theta'|^2;
    integrate.
Fails: for gradient descent by about `eta / 2` times the integral of `theta'^T H theta'`, with H the
    Hessian of L; for
minibatches, momentum, Adam and weight decay, whose velocity is not `-grad L`.

References:
    Gluch and Urbanke 2021, arXiv 2104.05508 (Noether's theorem for gradient flow, time
    translation).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad_and_value, vmap

from zoo.params import Params, mapped, trained_part

Loss = Callable[[Params], Tensor]
"""The loss of one network, over all images that it is trained on, by its params."""

Slope = Callable[[Params], tuple[Params, Tensor]]
"""Velocity, or gradient, and loss by the params, of many networks or of one."""


_Step = tuple[Params, Float[Tensor, " N"], Float[Tensor, " N"]]
"""Where networks are after a step, their loss before, what it adds to the integral."""


@dataclass(frozen=True, eq=False)
class Path:
    """Where networks went, and what time symmetry says of it.

    Attributes:
        params: Tensors `[N, *shape]` at the end.
        losses: Loss before each step, and at the end, `[N, S]`, `S = T + 1`.
        integral: The integral of the squared velocity up to each of these, `[N, S]`, from 0.
    """

    params: Params
    losses: Float[Tensor, "N S"]
    integral: Float[Tensor, "N S"]

    @property
    def decrease(self) -> Float[Tensor, "N S"]:
        """`L(theta(0)) - L(theta(t))`."""
        return self.losses[:, :1] - self.losses

    @property
    def difference(self) -> Float[Tensor, "N S"]:
        """Integral less decrease: 0 along gradient flow, of order of the step size in descent."""
        return self.integral - self.decrease


def path(
    params: Params,
    losses: Float[Tensor, "N S"],
    squares: Float[Tensor, "N T"],
    rates: Float[Tensor, "*N T"],
) -> Path:
    """A path of discrete steps that some training loop has recorded.

    integral_t = sum over steps s < t of eta_s |g_s|^2

    Args:
        params: Tensors `[N, *shape]` at the end.
        losses: Loss before each step, and at the end.
        squares: Squared norm of the gradient, over trained entries, at each step.
        rates: Step sizes `eta`, `[N, T]`, or `[T]` if all networks have the same.

    Returns:
        The path.
    """
    zero = torch.zeros_like(losses[:, :1])
    return Path(params, losses, torch.cat([zero, (rates * squares).cumsum(1)], dim=1))


def descend(
    loss: Loss,
    params: Mapping[str, Tensor],
    rate: float,
    steps: int,
    free: Mapping[str, Tensor] | None = None,
) -> Path:
    """Gradient descent on a whole loss, `theta <- theta - eta grad L`.

    Args:
        loss: The loss of one network; many go through `torch.func.vmap`.
        params: Tensors `[N, *shape]`.
        rate: Step size `eta`.
        steps: Number of steps `T`.
        free: Masks `[*shape]`, True where an entry is trained.

    Returns:
        The path; its difference falls in proportion to the step size if `eta T` stays.

    Raises:
        ValueError: If there is no step.
    """
    return _walk(_euler_step, loss, params, rate, steps, free)


def flow(
    loss: Loss,
    params: Mapping[str, Tensor],
    time: float,
    steps: int,
    free: Mapping[str, Tensor] | None = None,
) -> Path:
    """Gradient flow `theta' = -grad L` by the classical Runge-Kutta method, with its energy.

    `|theta'|^2` is integrated together with it.

    Args:
        loss: The loss of one network; many go through `torch.func.vmap`.
        params: Tensors `[N, *shape]`, float64 if the difference is to be small.
        time: How long `T` the flow goes.
        steps: Number of steps that it is divided into.
        free: Masks `[*shape]`, True where an entry is trained.

    Returns:
        The path; error and difference fall with the fourth power of `T / steps` where the loss is
        smooth.

    Raises:
        ValueError: If there is no step.
    """
    return _walk(_runge_kutta_step, loss, params, time / max(steps, 1), steps, free)


def _walk(
    step: Callable[[Slope, Params, float], _Step],
    loss: Loss,
    params: Mapping[str, Tensor],
    size: float,
    steps: int,
    free: Mapping[str, Tensor] | None,
) -> Path:
    """The path of some steps of one size from params on."""
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")
    slope = vmap(partial(_velocity, grad_and_value(loss), free or {}))
    place = mapped(Tensor.detach, params)
    losses, gains = [], []
    for _ in range(steps):
        place, value, gain = step(slope, place, size)
        losses.append(value)
        gains.append(gain)
    losses.append(slope(place)[1])
    sums = torch.stack([torch.zeros_like(losses[0]), *gains], dim=1).cumsum(1)
    return Path(place, torch.stack(losses, dim=1), sums)


def _euler_step(slope: Slope, place: Params, rate: float) -> _Step:
    velocity, value = slope(place)
    return _moved(place, velocity, rate), value, rate * _squared_norm(velocity)


def _runge_kutta_step(slope: Slope, place: Params, h: float) -> _Step:
    velocity, value = slope(place)
    stages = [velocity]
    for part in (h / 2, h / 2, h):
        stages.append(slope(_moved(place, stages[-1], part))[0])
    gain = torch.zeros_like(value)
    for stage, weight in zip(stages, (h / 6, h / 3, h / 3, h / 6), strict=True):
        place = _moved(place, stage, weight)
        gain = gain + weight * _squared_norm(stage)
    return place, value, gain


def _velocity(
    slope: Slope, free: Mapping[str, Tensor], params: Params
) -> tuple[Params, Float[Tensor, ""]]:
    """The velocity `-grad L` of one network, 0 at entries that are not trained, and its loss."""
    gradient, value = slope(params)
    return mapped(Tensor.neg, trained_part(gradient, free)), value


def _moved(params: Params, velocity: Params, time: float) -> Params:
    return {name: tensor + time * velocity[name] for name, tensor in params.items()}


def _squared_norm(velocity: Params) -> Float[Tensor, " N"]:
    squares = [t.reshape(len(t), -1).square().sum(1) for t in velocity.values()]
    return torch.stack(squares).sum(0)
