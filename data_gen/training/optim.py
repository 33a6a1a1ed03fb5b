"""Optimizers and learning-rate schedules in which every network has its own hyperparameters.

An optimizer is two functions of single tensors `[N, *shape]`; hyperparameters arrive as `[N]`.
Weight decay pulls to a center, 0 unless the architecture has offsets; `deviation` is from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from zoo.params import expand_right

Slots = tuple[Tensor, ...]
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Optimizer:
    """One optimizer.

    Attributes:
        num_slots: Tensors of state for each parameter, all zero at the start.
        update: `update(param, grad, slots, deviation, hparams, step) -> (param, slots)`, with
            `hparams` holding `lr` (after the schedule), `weight_decay` and `momentum` as `[N]`, and
            `step` `[N]` counting from 1.
    """

    num_slots: int
    update: Callable[
        [Tensor, Tensor, Slots, Tensor, Mapping[str, Tensor], Tensor], tuple[Tensor, Slots]
    ]


def sgd(
    param: Float[Tensor, "N ..."],
    grad: Float[Tensor, "N ..."],
    slots: Slots,
    deviation: Float[Tensor, "N ..."],
    hparams: Mapping[str, Tensor],
    step: Float[Tensor, " N"],
    nesterov: bool = False,
) -> tuple[Tensor, Slots]:
    """Stochastic gradient descent with momentum and coupled weight decay, as `torch.optim.SGD`.

    Args:
        param: Parameters.
        grad: Gradients.
        slots: The momentum buffer.
        deviation: Parameters less what weight decay pulls them to.
        hparams: `lr`, `weight_decay`, `momentum`, each `[N]`.
        step: Number of this step for each network, from 1; not used.
        nesterov: Whether to look ahead.

    Returns:
        New parameters and slots.
    """
    del step
    lr, decay, momentum = (
        expand_right(hparams[name], param) for name in ("lr", "weight_decay", "momentum")
    )
    grad = grad + decay * deviation
    velocity = momentum * slots[0] + grad
    return param - lr * (grad + momentum * velocity if nesterov else velocity), (velocity,)


def nesterov(
    param: Float[Tensor, "N ..."],
    grad: Float[Tensor, "N ..."],
    slots: Slots,
    deviation: Float[Tensor, "N ..."],
    hparams: Mapping[str, Tensor],
    step: Float[Tensor, " N"],
) -> tuple[Tensor, Slots]:
    """`sgd` with Nesterov momentum; arguments and result are the same."""
    return sgd(param, grad, slots, deviation, hparams, step, nesterov=True)


def adamw(
    param: Float[Tensor, "N ..."],
    grad: Float[Tensor, "N ..."],
    slots: Slots,
    deviation: Float[Tensor, "N ..."],
    hparams: Mapping[str, Tensor],
    step: Float[Tensor, " N"],
) -> tuple[Tensor, Slots]:
    """Adam with decoupled weight decay.

    The same as `torch.optim.AdamW` with betas (0.9, 0.999) and epsilon 1e-8.

    Args:
        param: Parameters.
        grad: Gradients.
        slots: First and second moment.
        deviation: Parameters less what weight decay pulls them to.
        hparams: `lr` and `weight_decay`, each `[N]`.
        step: Number of this step for each network, from 1.

    Returns:
        New parameters and slots.

    References:
        Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2.
    """
    lr, decay = (expand_right(hparams[name], param) for name in ("lr", "weight_decay"))
    first = BETA_1 * slots[0] + (1 - BETA_1) * grad
    second = BETA_2 * slots[1] + (1 - BETA_2) * grad * grad
    param = param - lr * decay * deviation
    unbiased_1, unbiased_2 = (expand_right(1 - beta**step, param) for beta in (BETA_1, BETA_2))
    root = (second / unbiased_2).sqrt() + EPSILON
    return param - lr * (first / unbiased_1) / root, (first, second)


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(1, sgd),
    "nesterov": Optimizer(1, nesterov),
    "adamw": Optimizer(2, adamw),
}


def constant(progress: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """The learning rate as it is."""
    return torch.ones_like(progress)


def cosine(progress: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + torch.cos(torch.pi * progress))


def triangular(progress: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Linear from 0 to 1 over the first half, and back to 0 over the second."""
    return 1 - (2 * progress - 1).abs()


# name -> factor of the learning rate as a function of progress, the middle of step t of T: (t +
# 1/2) / T
SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": constant,
    "cosine": cosine,
    "triangular": triangular,
}


def schedule_factor(
    name: str, step: Int64[Tensor, "*shape"], steps: Int64[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    """Factor of the learning rate at a step.

    Args:
        name: Name in `SCHEDULES`.
        step: Steps taken before, from 0.
        steps: Number of steps of the network's training.

    Returns:
        Factors in [0, 1].
    """
    return SCHEDULES[name]((step.double() + 0.5) / steps.double())
