"""Train N networks in lock step: one vectorised step for all of them, each with its own hyperparameters, data order and end."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor
from torch.func import grad, vmap

from data_gen.rng import fold, key
from data_gen.tasks.augmentation import augment, draw_moves
from data_gen.tasks.task import Task
from data_gen.training.compilation import compile_apart
from data_gen.training.optim import OPTIMIZERS, schedule_factor
from data_gen.training.order import EAGER, Kernels, feistel, round_tables, shuffled
from data_gen.training.precision import Precision, products_in
from data_gen.training.runs import DataView, TrainingRuns, draw_view
from data_gen.training.state import Batches, State, finite
from zoo.architectures.base import Architecture, constants_of
from zoo.params import Params, expand_right

STEPS_AHEAD = 32


class Trainer:
    """Trains chunks of networks of one architecture on one task.

    Args:
        architecture: The architecture, on the task's device.
        task: The task, on its device and in its dtype.
        seed: Seed of the job.
        compile: Whether to compile the step; one compilation for each shape of chunk, optimizer and
            batch size.
        precision: Arithmetic of the step, as `products_in` says.

    Attributes:
        compiled: Whether the step is compiled, so that a chunk had better keep its shape.
    """

    def __init__(
        self,
        architecture: Architecture,
        task: Task,
        seed: int,
        compile: bool = False,
        precision: Precision | None = None,
    ):
        self.architecture = architecture
        self.task = task
        self.seed = seed
        self.compiled = compile
        self._precision: Precision | None = precision
        self._forms: dict[tuple[object, ...], Callable[..., Any]] = {}
        self._kernels = EAGER
        if compile:
            self._kernels = Kernels(
                *(torch.compile(f, dynamic=True, fullgraph=True) for f in (round_tables, feistel))
            )
        self._free = architecture.free
        self._statistics = architecture.statistics
        self._centers = constants_of(architecture.constants, "offset")

    def uncompiled(self) -> "Trainer":
        """One that does the same without a compiled step."""
        return (
            Trainer(self.architecture, self.task, self.seed, precision=self._precision)
            if self.compiled
            else self
        )

    def start(self, runs: TrainingRuns, params: Params) -> State:
        """State before the first step.

        Args:
            runs: Who is trained.
            params: Initial effective parameters `[N, *shape]`, before the scale of the
                initialization; not changed.

        Returns:
            The state.
        """
        scaled = {}
        for name, tensor in params.items():
            scaled[name] = tensor.clone()
            if self.architecture.space.pattern(name).read:
                factor = expand_right(runs.hparams["init_scale"], tensor)
                mask = self._free.get(name)
                scaled[name] = (
                    factor * tensor if mask is None else torch.where(mask, factor * tensor, tensor)
                )
        num_slots = OPTIMIZERS[runs.optimizer].num_slots
        num_slots_of = {name: 0 if name in self._statistics else num_slots for name in scaled}
        slots = {
            name: tuple(torch.zeros_like(p) for _ in range(num_slots_of[name]))
            for name, p in scaled.items()
        }
        return State(
            scaled,
            slots,
            torch.zeros(len(runs.ids), dtype=torch.int64),
            torch.full_like(runs.ids, -1),
        )

    def run(
        self, runs: TrainingRuns, state: State, watch: Callable[[State], None] | None = None
    ) -> None:
        """Train until every network has taken its steps.

        Args:
            runs: Who is trained.
            state: From `start`; changed in place.
            watch: Called with the state before the first and after every step; steps
                that is run again are shown again.
        """
        watch = watch or _look_away
        watch(state)
        view, steps = draw_view(runs, self.task, self.seed), runs.steps.cpu()
        while (left := int((steps - state.step).max())) > 0:
            self.advance(runs, view, state, min(left, STEPS_AHEAD), watch)

    def advance(
        self,
        runs: TrainingRuns,
        view: DataView,
        state: State,
        length: int,
        watch: Callable[[State], None] | None = None,
    ) -> None:
        """Take some steps; networks that have stopped stay as they are.

        The steps run without checks; if a network's parameters are not finite after them, they are
        run again from their start, and each such network stops at its last finite parameters.

        Args:
            runs: Who is trained.
            view: What they see of the training part.
            state: Where training stands; changed in place.
            length: Number of steps.
            watch: Called with the state after every step; the steps that are run again are shown
                again.
        """
        watch = watch or _look_away
        batches, before = self.batches(runs, view, state, length), state.copy()
        with products_in(self._precision, runs.ids.device):
            for i in range(length):
                self._take(runs, state, batches, i)
                watch(state)
            if not bool(finite(state.params).all()):
                self._restore(state, before)
                self._run_checked(runs, state, batches, watch)

    def _run_checked(
        self, runs: TrainingRuns, state: State, batches: Batches, watch: Callable[[State], None]
    ) -> None:
        for i in range(len(batches.count)):
            before = state.copy()
            self._take(runs, state, batches, i, allowed=state.diverged_at < 0)
            bad = ~finite(state.params)
            for name, tensor in state.params.items():
                tensor[bad] = before.params[name][bad]
            state.diverged_at[bad] = state.step.to(bad.device)[bad]
            watch(state)

    @staticmethod
    def _restore(state: State, saved: State) -> None:
        for name, tensor in saved.params.items():
            state.params[name].copy_(tensor)
            for slot, old in zip(state.slots[name], saved.slots[name], strict=True):
                slot.copy_(old)
        state.step.copy_(saved.step)
        state.diverged_at.copy_(saved.diverged_at)

    def _take(
        self,
        runs: TrainingRuns,
        state: State,
        batches: Batches,
        i: int,
        allowed: Tensor | None = None,
    ) -> None:
        """One step of all networks, in place."""
        active = batches.active[i] if allowed is None else batches.active[i] & allowed
        hparams = {
            name: runs.hparams[name] for name in ("weight_decay", "momentum", "label_smoothing")
        }
        hparams["lr"] = batches.lr[i]
        batch = (self._stored(batches, i), batches.target[i], active, batches.count[i])
        moves = None if batches.moves is None else batches.moves[i]
        step = self._form(self._step, runs.optimizer, runs.batch_size, len(runs.ids))
        step(state.params, state.slots, hparams, batch, moves, runs.optimizer)
        state.step += 1

    def _stored(self, batches: Batches, i: int) -> Shaped[Tensor, "N B ..."]:
        """Images of one step as they are stored."""
        return self.task.train.x.index_select(0, batches.index[i].reshape(-1)).unflatten(
            0, batches.index[i].shape
        )

    def images(self, batches: Batches, i: int) -> Shaped[Tensor, "N B ..."]:
        """Images of one step as the networks see them.

        Args:
            batches: The batches.
            i: Which of its steps.

        Returns:
            Images after augmentation, in the units in which they are stored.
        """
        return self._augment(
            self._stored(batches, i), None if batches.moves is None else batches.moves[i]
        )

    def _augment(self, images: Tensor, moves: Tensor | None) -> Tensor:
        augmentation = self.task.augmentation
        return (
            images
            if augmentation is None or moves is None
            else augment(augmentation, images, moves, self.task.mean)
        )

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
        logits, moved = self.architecture.apply_training(
            {**trained, **statistics}, self.task.inputs(images)
        )
        return smoothed_cross_entropy(logits, target, smoothing), moved

    def _step(
        self,
        params: Params,
        slots: dict[str, tuple[Tensor, ...]],
        hparams: Mapping[str, Tensor],
        batch: tuple[Tensor, Tensor, Tensor, Tensor],
        moves: Tensor | None,
        optimizer: str,
    ) -> None:
        stored, target, active, count = batch
        images = self._augment(stored, moves)
        grads, moved = self.gradients(params, images, target, hparams["label_smoothing"])
        for name in self._statistics:
            params[name].copy_(
                torch.where(expand_right(active, params[name]), moved[name], params[name])
            )
        update = OPTIMIZERS[optimizer].update
        for name, grad_of in grads.items():
            param = params[name]
            new, new_slots = update(
                param, grad_of, slots[name], self._centers.get(name), hparams, count
            )
            write = expand_right(active, param)
            if name in self._free:
                write = write & self._free[name]
            param.copy_(torch.where(write, new, param))
            for slot, value in zip(slots[name], new_slots, strict=True):
                slot.copy_(value)

    def score(
        self,
        params: Params,
        images: Shaped[Tensor, "X ..."],
        target: Int64[Tensor, "N X"],
        counted: Bool[Tensor, "N X"],
    ) -> tuple[Float64[Tensor, " N"], Int64[Tensor, " N"]]:
        """How networks do on some images.

        Args:
            params: Effective parameters `[N, *shape]`.
            images: Images, as they are stored.
            target: Labels as each network is to see them.
            counted: Which images count for which network.

        Returns:
            Sum of the cross-entropies in nats, and number of right answers, over the images that
            count.
        """
        return self._form(self._score, *target.shape)(params, images, target, counted)

    def _score(
        self,
        params: Params,
        images: Shaped[Tensor, "X ..."],
        target: Int64[Tensor, "N X"],
        counted: Bool[Tensor, "N X"],
    ) -> tuple[Float64[Tensor, " N"], Int64[Tensor, " N"]]:
        logits = vmap(self.architecture.apply, in_dims=(0, None))(params, self.task.inputs(images))
        nll = -F.log_softmax(logits.double(), dim=-1).gather(-1, target[..., None])[..., 0]
        return torch.where(counted, nll, 0).sum(1), ((logits.argmax(-1) == target) & counted).sum(1)

    def _form(self, method: Any, *variant: object) -> Callable[..., Any]:
        """A method as it runs: itself, or compiled for arguments of one kind."""
        if self._kernels is EAGER:
            return method
        key = (method.__name__, *variant)
        if key not in self._forms:
            self._forms[key] = compile_apart(method)
        return self._forms[key]

    def batches(self, runs: TrainingRuns, view: DataView, state: State, length: int) -> Batches:
        """Batches, learning rates and activity of some steps from where each network stands.

        Args:
            runs: Who is trained.
            view: What they see of the training part.
            state: Where training stands.
            length: Number of steps.

        Returns:
            The batches.
        """
        device, dtype = runs.ids.device, runs.hparams["lr"].dtype
        steps = (
            state.step.to(device, non_blocking=True) + torch.arange(length, device=device)[:, None]
        )
        shape = (len(runs.ids), length, runs.batch_size)
        position = (steps.T[..., None] * shape[2] + torch.arange(shape[2], device=device)).reshape(
            shape[0], -1
        )
        index = shuffled(
            fold(key(self.seed, "order"), runs.ids),
            position,
            runs.train_size,
            self._kernels,
        )
        index, target = view.batch(index)
        moves = None
        if self.task.augmentation is not None:
            height, width = self.task.input_shape[1:]
            moves = draw_moves(
                self.task.augmentation, self.seed, runs.ids, position, (height, width)
            )
            moves = moves.unflatten(1, shape[1:]).transpose(0, 1).contiguous()
        factor = schedule_factor(runs.schedule, steps, runs.steps.expand(length, -1))
        return Batches(
            index=index.reshape(shape).transpose(0, 1).contiguous(),
            target=target.reshape(shape).transpose(0, 1).contiguous(),
            lr=(runs.hparams["lr"] * factor).to(dtype),
            active=(steps < runs.steps) & (state.diverged_at < 0),
            count=(steps + 1).to(dtype),
            moves=moves,
        )


def smoothed_cross_entropy(
    logits: Float[Tensor, "X K"], target: Int64[Tensor, " X"], smoothing: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Mean cross-entropy against labels mixed with the uniform distribution, as `F.cross_entropy(..., label_smoothing=...)`.

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


def _look_away(_state: State) -> None:
    """Watch nothing."""
