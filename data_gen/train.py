"""Train N networks in lock step: one vectorised step for all of them, each with its own hyperparameters, data order and end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.func import grad, vmap

from data_gen.networks import Exposure, Networks, expose
from data_gen.optim import OPTIMIZERS, schedule_factor
from data_gen.order import EAGER, Kernels, feistel, round_tables, shuffled
from data_gen.rng import fold, key
from data_gen.tasks import Task
from zoo.architectures.base import Architecture, constants_of
from zoo.params import Params, expand_right

BLOCK_STEPS = 32


@dataclass
class State:
    """Where training stands.

    Attributes:
        params: Effective parameters `[N, *shape]`; of a diverged network the last finite ones.
        slots: Optimizer state of each parameter; running statistics have none.
        step: Steps taken.
        diverged_at: Step at which a network's parameters stopped being finite, -1 while they are, `[N]`.
    """

    params: Params
    slots: dict[str, tuple[Tensor, ...]]
    step: int
    diverged_at: Int64[Tensor, " N"]

    def copy(self) -> "State":
        """A copy that shares no memory."""
        slots = {name: tuple(slot.clone() for slot in slots) for name, slots in self.slots.items()}
        return State({n: p.clone() for n, p in self.params.items()}, slots, self.step, self.diverged_at.clone())


@dataclass(frozen=True)
class Block:
    """What the data-dependent part of some consecutive steps needs, made ahead for all of them.

    Attributes:
        index: Images of each batch `[S, N, B]`.
        target: Labels of each batch, noise included, `[S, N, B]`.
        lr: Learning rate after the schedule `[S, N]`.
        active: Whether a network still trains `[S, N]`.
        count: Number of each step, from 1, `[S]`.
    """

    index: Int64[Tensor, "S N B"]
    target: Int64[Tensor, "S N B"]
    lr: Float[Tensor, "S N"]
    active: Bool[Tensor, "S N"]
    count: Float[Tensor, " S"]


class Trainer:
    """Trains chunks of networks of one architecture on one task.

    Args:
        architecture: The architecture, on the task's device.
        task: The task, on its device and in its dtype.
        seed: Seed of the job.
        compile: Whether to compile the step; one compilation for each shape of chunk, optimizer and batch size.
    """

    def __init__(self, architecture: Architecture, task: Task, seed: int, compile: bool = False):
        self.architecture = architecture
        self.task = task
        self.seed = seed
        self._step, self._kernels = self._eager_step, EAGER
        if compile:
            self._step = torch.compile(self._eager_step, dynamic=False, fullgraph=True)
            self._kernels = Kernels(*(torch.compile(f, dynamic=True, fullgraph=True) for f in (round_tables, feistel)))
        self._free = architecture.free
        self._statistics = architecture.statistics
        self._centers = constants_of(architecture.constants, "offset")

    def start(self, networks: Networks, params: Params) -> State:
        """State before the first step.

        Args:
            networks: Who is trained.
            params: Initial effective parameters `[N, *shape]`, before the scale of the initialization; not changed.

        Returns:
            The state.
        """
        scaled = {}
        for name, tensor in params.items():
            scaled[name] = tensor.clone()
            if self.architecture.space.pattern(name).read:
                factor = expand_right(networks.hparams["init_scale"], tensor)
                mask = self._free.get(name)
                scaled[name] = factor * tensor if mask is None else torch.where(mask, factor * tensor, tensor)
        num_slots = OPTIMIZERS[networks.optimizer].num_slots
        num_slots_of = {name: 0 if name in self._statistics else num_slots for name in scaled}
        slots = {name: tuple(torch.zeros_like(p) for _ in range(num_slots_of[name])) for name, p in scaled.items()}
        return State(scaled, slots, 0, torch.full_like(networks.ids, -1))

    def run(self, networks: Networks, state: State, watch: Callable[[State], None] | None = None) -> None:
        """Train until every network has taken its steps.

        A block of steps runs without checks; if a network's parameters are not finite after it, the block is run again from
        its start, and each such network stops at its last finite parameters.

        Args:
            networks: Who is trained.
            state: From `start`; changed in place.
            watch: Called with the state before the first and after every step; the steps of a block that is run again are
                shown again.
        """
        watch = watch or (lambda _: None)
        watch(state)
        seen = expose(networks, self.task, self.seed)
        last = int(networks.steps.max())
        while state.step < last:
            block = self.block(networks, seen, state, min(last, state.step + BLOCK_STEPS))
            before = state.copy()
            for i in range(len(block.count)):
                self._take(networks, state, block, i)
                watch(state)
            if not bool(_finite(state.params).all()):
                self._restore(state, before)
                self._run_checked(networks, state, block, watch)

    def _run_checked(self, networks: Networks, state: State, block: Block, watch: Callable[[State], None]) -> None:
        for i in range(len(block.count)):
            before = state.copy()
            self._take(networks, state, block, i, allowed=state.diverged_at < 0)
            bad = ~_finite(state.params)
            for name, tensor in state.params.items():
                tensor[bad] = before.params[name][bad]
            state.diverged_at[bad] = state.step
            watch(state)

    @staticmethod
    def _restore(state: State, saved: State) -> None:
        for name, tensor in saved.params.items():
            state.params[name].copy_(tensor)
            for slot, old in zip(state.slots[name], saved.slots[name], strict=True):
                slot.copy_(old)
        state.step = saved.step
        state.diverged_at.copy_(saved.diverged_at)

    def _take(self, networks: Networks, state: State, block: Block, i: int, allowed: Tensor | None = None) -> None:
        """One step of all networks, in place."""
        active = block.active[i] if allowed is None else block.active[i] & allowed
        hparams = {name: networks.hparams[name] for name in ("weight_decay", "momentum", "label_smoothing")}
        hparams["lr"] = block.lr[i]
        images = self.task.train.x.index_select(0, block.index[i].reshape(-1)).unflatten(0, block.index[i].shape)
        batch = (images, block.target[i], active, block.count[i])
        self._step(state.params, state.slots, hparams, batch, networks.optimizer)
        state.step += 1

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
            Gradients `[N, *shape]` of all tensors but running statistics, fixed entries included; running statistics after it.
        """
        statistics = {name: params[name] for name in self._statistics}
        trained = {name: param for name, param in params.items() if name not in statistics}
        return vmap(grad(self._loss, has_aux=True))(trained, statistics, images, target, smoothing)

    def _loss(
        self, trained: Params, statistics: Params, images: Tensor, target: Tensor, smoothing: Tensor
    ) -> tuple[Tensor, Params]:
        """Loss of one network on its batch, and its running statistics after it."""
        logits, moved = self.architecture.apply_training({**trained, **statistics}, self.task.inputs(images))
        return smoothed_cross_entropy(logits, target, smoothing), moved

    def _eager_step(
        self,
        params: Params,
        slots: dict[str, tuple[Tensor, ...]],
        hparams: Mapping[str, Tensor],
        batch: tuple[Tensor, Tensor, Tensor, Tensor],
        optimizer: str,
    ) -> None:
        images, target, active, count = batch
        grads, moved = self.gradients(params, images, target, hparams["label_smoothing"])
        for name in self._statistics:
            params[name].copy_(torch.where(expand_right(active, params[name]), moved[name], params[name]))
        update = OPTIMIZERS[optimizer].update
        for name, grad_of in grads.items():
            param = params[name]
            new, new_slots = update(param, grad_of, slots[name], self._centers.get(name), hparams, count)
            write = expand_right(active, param)
            if name in self._free:
                write = write & self._free[name]
            param.copy_(torch.where(write, new, param))
            for slot, value in zip(slots[name], new_slots, strict=True):
                slot.copy_(value)

    def block(self, networks: Networks, seen: Exposure, state: State, until: int) -> Block:
        """Batches, learning rates and activity from the state's step to another one.

        Args:
            networks: Who is trained.
            seen: What they see of the training part.
            state: Where training stands.
            until: One past the last step of the block.

        Returns:
            The block.
        """
        steps = torch.arange(state.step, until, device=networks.ids.device)
        size = networks.batch_size
        position = (steps[:, None] * size + torch.arange(size, device=steps.device)).reshape(1, -1)
        position = position.expand(len(networks.ids), -1)
        index = shuffled(fold(key(self.seed, "order"), networks.ids), position, networks.train_size, self._kernels)
        index, target = seen.batch(index)
        shape = (len(networks.ids), len(steps), size)
        progress = steps[:, None].expand(-1, len(networks.ids)), networks.steps.expand(len(steps), -1)
        return Block(
            index=index.reshape(shape).transpose(0, 1).contiguous(),
            target=target.reshape(shape).transpose(0, 1).contiguous(),
            lr=(networks.hparams["lr"] * schedule_factor(networks.schedule, *progress)).to(networks.hparams["lr"].dtype),
            active=(steps[:, None] < networks.steps) & (state.diverged_at < 0),
            count=(steps + 1).to(networks.hparams["lr"].dtype),
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


def _finite(params: Params) -> Bool[Tensor, " N"]:
    """Which networks have only finite parameters."""
    return torch.stack([torch.isfinite(tensor).reshape(len(tensor), -1).all(1) for tensor in params.values()]).all(0)
