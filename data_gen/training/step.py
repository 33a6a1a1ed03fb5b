"""One training step of N networks at once: batch, loss, gradients, update. All of it compiles."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.func import grad

from data_gen.rng import fold, uniform
from data_gen.tasks.augmentation import augment
from data_gen.tasks.data import Inputs, Task
from data_gen.training.optim import OPTIMIZERS
from zoo.architectures.base import Architecture, constants_of
from zoo.architectures.lock_step import over_networks
from zoo.params import Params, expand_right


class Step:
    """The training step of an architecture on a task.

    Args:
        architecture: The architecture, on the task's device.
        task: The task.
    """

    def __init__(self, architecture: Architecture, task: Task):
        self._architecture = architecture
        self._task = task
        self._free = architecture.free
        self._statistics = architecture.statistics
        self._centers = constants_of(architecture.constants, "offset")
        self._filling = _filling(task)

    def take(
        self,
        params: Params,
        slots: dict[str, tuple[Tensor, ...]],
        hparams: Mapping[str, Tensor],
        batch: tuple[Inputs, Tensor, Tensor, Tensor, Tensor],
        moves: Tensor,
        optimizer: str,
    ) -> None:
        """Change parameters and optimizer state by one step; networks that do not train stay.

        Args:
            params: Effective parameters `[N, *shape]`, changed in place.
            slots: Optimizer state of each, changed in place.
            hparams: Numeric hyperparameters `[N]`, the learning rate after the schedule.
            batch: Inputs, stored or in floats, and targets of each network; whether it trains;
                number of its step; key of what it draws in it.
            moves: What augmentation does to each image; no draws without augmentation.
            optimizer: Name in `OPTIMIZERS`.
        """
        stored, target, active, count, noise = batch
        images = self.augmented(stored, moves)
        grads, statistics = self.gradients(
            params, images, target, hparams["label_smoothing"], noise
        )
        for name in self._statistics:
            _write(params[name], statistics[name], active)
        update = OPTIMIZERS[optimizer].update
        for name, gradient in grads.items():
            param = params[name]
            deviation = param - self._centers[name] if name in self._centers else param
            new, new_slots = update(param, gradient, slots[name], deviation, hparams, count)
            _write(param, new, active, self._free.get(name))
            for slot, value in zip(slots[name], new_slots, strict=True):
                slot.copy_(value)

    def gradients(
        self,
        params: Params,
        images: Inputs,
        target: Shaped[Tensor, "N B ..."],
        smoothing: Float[Tensor, " N"],
        noise: Int64[Tensor, " N"],
    ) -> tuple[Params, Params]:
        """Gradients of the training loss, each network on a batch of its own.

        Args:
            params: Effective parameters `[N, *shape]`.
            images: Inputs of the training part, as they are stored.
            target: Targets.
            smoothing: Label smoothing.
            noise: Keys of what the networks draw, such as dropout.

        Returns:
            Gradients `[N, *shape]` of all tensors but running statistics, fixed entries included;
            running statistics after it.
        """
        statistics = {name: params[name] for name in self._statistics}
        trained = {name: param for name, param in params.items() if name not in statistics}
        of_one = grad(self._loss, has_aux=True)
        of_many = over_networks(self._architecture, of_one, (0, 0, 0, 0, 0, 0))
        return of_many(trained, statistics, images, target, smoothing, noise)

    def _loss(
        self,
        trained: Params,
        statistics: Params,
        images: Inputs,
        target: Tensor,
        smoothing: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Params]:
        """Loss of one network on its batch, and its running statistics after it."""
        outputs, moved = self._architecture.apply_training(
            {**trained, **statistics}, self._task.inputs(images), partial(_uniform, noise)
        )
        return self._task.loss.mean(outputs, target, smoothing), moved

    def augmented(self, images: Inputs, moves: Int64[Tensor, "*moves"]) -> Inputs:
        """Inputs of a batch as networks see them.

        Args:
            images: Inputs as they are stored, or in floats.
            moves: What happens to each, as `draw_moves` says.

        Returns:
            Inputs in the units in which they are stored.
        """
        augmentation = self._task.augmentation
        if augmentation is None:
            return images
        return augment(augmentation, images, moves, self._filling)


def _filling(task: Task) -> Inputs:
    """What cutout fills with: the mean of each channel, whole if images are stored as integers."""
    if task.augmentation is None or task.train.x.is_floating_point():
        return task.mean
    return task.mean.round()


def _uniform(noise: Tensor, call: int, shape: Sequence[int]) -> Tensor:
    """What one network draws in one step at one call of a random function."""
    position = torch.arange(math.prod(shape), device=noise.device)
    position = position + (noise & 0)  # of an index alone the compiler makes products that overflow
    return uniform(fold(noise, call), position).reshape(tuple(shape))


def _write(tensor: Tensor, new: Tensor, active: Tensor, free: Tensor | None = None) -> None:
    """Overwrite the rows of active networks, free entries only."""
    write = expand_right(active, tensor)
    if free is not None:
        write = write & free
    tensor.copy_(torch.where(write, new, tensor))
