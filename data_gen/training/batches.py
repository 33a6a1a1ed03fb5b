"""Batches of consecutive steps, made ahead for all networks of a chunk."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from data_gen.rng import fold, key
from data_gen.tasks.augmentation import draw_moves
from data_gen.tasks.data import Task
from data_gen.training.optim import schedule_factor
from data_gen.training.order import EAGER, Kernels, shuffled
from data_gen.training.runs import DataView, TrainingRuns
from data_gen.training.state import State


@dataclass(frozen=True)
class Batches:
    """What the data-dependent part of some consecutive steps needs.

    Attributes:
        index: Examples of each batch `[S, N, B]`.
        ids: Network ids `[N]`.
        target: Targets of each batch, noise included, `[S, N, B, ...]`.
        lr: Learning rate after the schedule `[S, N]`.
        trains: Whether a network has steps left, unless it diverges, `[S, N]`.
        count: Number of each step for each network, from 1, `[S, N]`.
        moves: What augmentation does to each image, as `draw_moves` says; no draws without it.
        noise: Key of what each network draws in each step, such as dropout, `[S, N]`.
    """

    index: Int64[Tensor, "S N B"]
    ids: Int64[Tensor, " N"]
    target: Shaped[Tensor, "S N B ..."]
    lr: Float[Tensor, "S N"]
    trains: Bool[Tensor, "S N"]
    count: Float[Tensor, "S N"]
    moves: Int64[Tensor, "S N B draws"]
    noise: Int64[Tensor, "S N"]


def draw_batches(
    runs: TrainingRuns,
    view: DataView,
    state: State,
    length: int,
    task: Task,
    seed: int,
    kernels: Kernels = EAGER,
) -> Batches:
    """Batches, learning rates and activity of some steps from where each network stands.

    Args:
        runs: The networks.
        view: What they see of the training part.
        state: Where training stands.
        length: Number of steps.
        task: The task.
        seed: Seed of the job.
        kernels: How to compute the shuffle.

    Returns:
        The batches.
    """
    taken = state.step.to(runs.ids.device, non_blocking=True)
    steps = taken + torch.arange(length, device=runs.ids.device)[:, None]
    position = _positions(steps, runs.batch_size)
    order_keys = fold(key(seed, "order"), runs.ids)
    index, target = view.batch(shuffled(order_keys, position, runs.train_size, kernels))
    moves = _draw_moves(task, seed, runs, position)
    lr = runs.hparams["lr"]
    factor = schedule_factor(runs.schedule, steps, runs.steps.expand(length, -1))
    return Batches(
        index=_steps_first(index, length),
        ids=runs.ids,
        target=_steps_first(target, length),
        lr=(lr * factor).to(lr),
        trains=steps < runs.steps,
        count=(steps + 1).to(lr),
        moves=_steps_first(moves, length),
        noise=fold(fold(key(seed, "draws in training"), runs.ids), steps),
    )


def _draw_moves(
    task: Task, seed: int, runs: TrainingRuns, position: Int64[Tensor, "N M"]
) -> Int64[Tensor, "N M draws"]:
    """What augmentation does to each image; no draws without augmentation."""
    if task.augmentation is None:
        return position.new_empty((*position.shape, 0))
    _, height, width = task.input_shape
    return draw_moves(task.augmentation, seed, runs.ids, position, (height, width))


def _positions(steps: Int64[Tensor, "S N"], batch_size: int) -> Int64[Tensor, "N M"]:
    """Where the images of some steps are in the sequence of each network."""
    within = torch.arange(batch_size, device=steps.device)
    return (steps.T[..., None] * batch_size + within).flatten(1)


def _steps_first(by_position: Tensor, length: int) -> Tensor:
    """From `[N, S B, ...]` to `[S, N, B, ...]`."""
    return by_position.unflatten(1, (length, -1)).transpose(0, 1).contiguous()
