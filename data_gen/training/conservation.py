"""Conserved quantities of networks that train in lock step, and how far gradients break them."""

from functools import partial

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from data_gen.rng import generator
from data_gen.tasks.data import Inputs, Task
from data_gen.training.recorder import at_checkpoints
from data_gen.training.runs import DataView, TrainingRuns, draw_view
from data_gen.training.state import State, concatenate
from data_gen.training.trainer import Trainer
from zoo.architectures.base import Architecture
from zoo.conservation.find import find_laws
from zoo.conservation.laws import Law, declared_laws
from zoo.conservation.quantities import measure
from zoo.params import Params, select, trained_part
from zoo.store.schema import QUANTITY, RESIDUAL

TOLERANCE = 1e-3
"""Of the residual of a law that is found: scales before a norm hold up to the norm's epsilon."""
_NUM_IMAGES = 64


def laws_of(standard: Architecture, task: Task, which: str) -> tuple[Law, ...]:
    """The laws of an architecture without its asymmetry, in training.

    Args:
        standard: The standard architecture, on the CPU.
        task: The task.
        which: `"declared"` for those of its weight space, which hold for every loss; `"found"` for
            all that gradients of the task's loss on some training examples confirm, at three
            generic points.

    Returns:
        The laws.
    """
    if which == "declared":
        return declared_laws(standard.space)
    exact, images = standard.to("cpu", torch.float64), task.to("cpu", torch.float64)
    some = torch.arange(min(_NUM_IMAGES, len(images.train)))
    x, y = images.inputs(images.train.rows(some)), images.train.targets(some[:1])[0][some]

    def loss(params: Params) -> Tensor:
        return images.loss.mean(exact.apply_training(params, x)[0], y)

    params = standard.init(generator(0, "laws"))
    return find_laws(standard.space, loss, params, tolerance=TOLERANCE)


def measure_conservation(
    trainer: Trainer,
    runs: TrainingRuns,
    laws: tuple[Law, ...],
    trajectory: dict[str, Float[Tensor, "N T ..."]],
    size: int,
) -> dict[str, Float[Tensor, "N T ..."]]:
    """Quantities and residuals at the checkpoints of networks.

    Residuals are those of the gradient that training has on the network's first batch, the same
    batch at all checkpoints; fixed entries have no gradient.

    Args:
        trainer: Who trained them.
        runs: The networks.
        laws: The laws.
        trajectory: Parameters at the checkpoints.
        size: Networks to look at together.

    Returns:
        For each law `quantity.<law>` and `residual.<law>`, on the CPU.
    """
    parts = []
    for rows in torch.arange(len(runs.ids)).split(size):
        some = runs.take(rows)
        batch = batch_of(trainer, some, draw_view(some, trainer.task, trainer.seed), 0)
        measure_some = partial(_measure_together, trainer, some, laws, batch)
        parts.append(at_checkpoints(measure_some, select(trajectory, rows), trainer.task.like))
    return concatenate(parts)


def _measure_together(
    trainer: Trainer,
    runs: TrainingRuns,
    laws: tuple[Law, ...],
    batch: tuple[Inputs, Tensor, Tensor],
    params: Params,
) -> Params:
    quantities, residuals = measure(laws, params, gradients_of(trainer, runs, params, batch))
    columns = {f"{QUANTITY}{name}": value for name, value in quantities.items()}
    return columns | {f"{RESIDUAL}{name}": value for name, value in residuals.items()}


def batch_of(
    trainer: Trainer, runs: TrainingRuns, view: DataView, step: int
) -> tuple[Inputs, Shaped[Tensor, "N B ..."], Int64[Tensor, " N"]]:
    """Inputs of each network's batch in one step, and their targets as the network sees them.

    Args:
        trainer: Who trains.
        runs: The networks.
        view: What they see of the training part.
        step: Number of the step, from 0.

    Returns:
        Inputs after augmentation, targets, and keys of what the networks draw.
    """
    before = State({}, {}, torch.full((len(runs.ids),), step), torch.full_like(runs.ids, -1))
    batches = trainer.batches(runs, view, before, 1)
    return trainer.images(batches, 0), batches.target[0], batches.noise[0]


def gradients_of(
    trainer: Trainer, runs: TrainingRuns, params: Params, batch: tuple[Inputs, Tensor, Tensor]
) -> Params:
    """Gradients of the training loss, 0 at fixed entries.

    Args:
        trainer: Who trains.
        runs: The networks.
        params: Effective parameters `[N, *shape]`.
        batch: As `batch_of` gives it.

    Returns:
        Gradients of all tensors but running statistics.
    """
    images, target, noise = batch
    smoothing = runs.hparams["label_smoothing"]
    gradients, _ = trainer.step.gradients(params, images, target, smoothing, noise)
    return trained_part(gradients, trainer.architecture.free)
