"""One training step of N networks at once: batch, loss, gradients, update. All of it compiles."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.func import grad, vmap

from data_gen.tasks.augmentation import augment
from data_gen.tasks.task import Task
from data_gen.training.optim import OPTIMIZERS
from zoo.architectures.base import Architecture, constants_of
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

    def take(
        self,
        params: Params,
        slots: dict[str, tuple[Tensor, ...]],
        hparams: Mapping[str, Tensor],
        batch: tuple[Tensor, Tensor, Tensor, Tensor],
        moves: Tensor,
        optimizer: str,
    ) -> None:
        """Change parameters and optimizer state by one step; networks that do not train stay.

        Args:
            params: Effective parameters `[N, *shape]`, changed in place.
            slots: Optimizer state of each, changed in place.
            hparams: Numeric hyperparameters `[N]`, the learning rate after the schedule.
            batch: Stored images and labels of each network; whether it trains; number of its step.
            moves: What augmentation does to each image; no draws without augmentation.
            optimizer: Name in `OPTIMIZERS`.
        """
        stored, target, active, count = batch
        images = self.augmented(stored, moves)
        grads, statistics = self.gradients(params, images, target, hparams["label_smoothing"])
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
        images: Shaped[Tensor, "N B ..."],
        target: Int64[Tensor, "N B"],
        smoothing: Float[Tensor, " N"],
    ) -> tuple[Params, Params]:
        """Gradients of the training loss, each network on a batch of its own.

        Args:
            params: Effective parameters `[N, *shape]`.
            images: Images of the training part.
            target: Labels.
            smoothing: Label smoothing.

        Returns:
            Gradients `[N, *shape]` of all tensors but running statistics, fixed entries included;
            running statistics after it.
        """
        statistics = {name: params[name] for name in self._statistics}
        trained = {name: param for name, param in params.items() if name not in statistics}
        return vmap(grad(self._loss, has_aux=True))(trained, statistics, images, target, smoothing)

    def _loss(
        self, trained: Params, statistics: Params, images: Tensor, target: Tensor, smoothing: Tensor
    ) -> tuple[Tensor, Params]:
        """Loss of one network on its batch, and its running statistics after it."""
        logits, moved = self._architecture.apply_training(
            {**trained, **statistics}, self._task.inputs(images)
        )
        return smoothed_cross_entropy(logits, target, smoothing), moved

    def augmented(
        self, images: Shaped[Tensor, "*batch"], moves: Int64[Tensor, "*moves"]
    ) -> Shaped[Tensor, "*batch"]:
        """Images of a batch as networks see them.

        Args:
            images: Images as they are stored.
            moves: What happens to each, as `draw_moves` says.

        Returns:
            Images in the units in which they are stored.
        """
        augmentation = self._task.augmentation
        if augmentation is None:
            return images
        return augment(augmentation, images, moves, self._task.mean)


def _write(tensor: Tensor, new: Tensor, active: Tensor, free: Tensor | None = None) -> None:
    """Overwrite the rows of active networks, free entries only."""
    write = expand_right(active, tensor)
    if free is not None:
        write = write & free
    tensor.copy_(torch.where(write, new, tensor))


def smoothed_cross_entropy(
    logits: Float[Tensor, "X K"], target: Int64[Tensor, " X"], smoothing: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Mean cross-entropy against labels mixed with the uniform distribution.

    The same as `F.cross_entropy(..., label_smoothing=...)`, for a smoothing in a tensor.

    Args:
        logits: Outputs of one network.
        target: Labels.
        smoothing: Weight of the uniform distribution.

    Returns:
        The loss in nats.
    """
    log_p = F.log_softmax(logits, dim=-1)
    chosen = log_p.gather(-1, target[:, None])[:, 0]
    return -((1 - smoothing) * chosen + smoothing * log_p.mean(-1)).mean()
