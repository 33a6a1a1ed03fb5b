"""Train N networks in lock step, each with its own hyperparameters, data order and end."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor
from torch.func import vmap

from data_gen.tasks.data import Inputs, Task
from data_gen.training.batches import Batches, draw_batches
from data_gen.training.compilation import compile_if_possible
from data_gen.training.optim import OPTIMIZERS
from data_gen.training.order import EAGER, Kernels, feistel, round_tables
from data_gen.training.precision import Precision, products_in
from data_gen.training.runs import DataView, TrainingRuns, draw_view
from data_gen.training.state import State, finite
from data_gen.training.step import Step
from zoo.architectures.base import Architecture
from zoo.architectures.lock_step import over_networks
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
        architecture: The architecture.
        task: The task.
        seed: Seed of the job.
        compiled: Whether the step is compiled, so that a chunk had better keep its shape.
        step: The step, as it is written.
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
        self.step = Step(architecture, task)
        self._precision: Precision | None = precision
        self._forms: dict[tuple[object, ...], Callable[..., Any]] = {}
        self._kernels = EAGER
        if compile:
            self._kernels = Kernels(
                *(torch.compile(f, dynamic=True, fullgraph=True) for f in (round_tables, feistel))
            )

    def uncompiled(self) -> "Trainer":
        """One that does the same without a compiled step."""
        return Trainer(self.architecture, self.task, self.seed, precision=self._precision)

    def start(self, runs: TrainingRuns, params: Params) -> State:
        """State before the first step.

        Args:
            runs: Who is trained.
            params: Initial effective parameters `[N, *shape]`, before the scale of the
                initialization; not changed.

        Returns:
            The state.
        """
        free, statistics = self.architecture.free, self.architecture.statistics
        scaled, slots = {}, {}
        for name, tensor in params.items():
            scaled[name] = tensor.clone()
            if self.architecture.space.pattern(name).read and name not in statistics:
                scaled[name] = expand_right(runs.hparams["init_scale"], tensor) * tensor
                if name in free:
                    scaled[name] = torch.where(free[name], scaled[name], tensor)
            num_slots = 0 if name in statistics else OPTIMIZERS[runs.optimizer].num_slots
            slots[name] = tuple(torch.zeros_like(tensor) for _ in range(num_slots))
        step = torch.zeros(len(runs.ids), dtype=torch.int64)
        return State(scaled, slots, step, diverged_at=torch.full_like(runs.ids, -1))

    def run(
        self, runs: TrainingRuns, state: State, watch: Callable[[State], object] = lambda _: None
    ) -> None:
        """Train until every network has taken its steps.

        Args:
            runs: Who is trained.
            state: From `start`; changed in place.
            watch: Called with the state before the first and after every step; steps that are run
                again are shown again.
        """
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
        watch: Callable[[State], object] = lambda _: None,
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
        batches, before = self.batches(runs, view, state, length), state.copy()
        with products_in(self._precision, runs.ids.device):
            for i in range(length):
                self._take(runs, state, batches, i)
                watch(state)
            if not bool(finite(state.params).all()):
                state.restore(before)
                self._run_checked(runs, state, batches, watch)

    def _run_checked(
        self, runs: TrainingRuns, state: State, batches: Batches, watch: Callable[[State], object]
    ) -> None:
        for i in range(len(batches.count)):
            before = state.copy()
            self._take(runs, state, batches, i)
            bad = ~finite(state.params)
            for name, tensor in state.params.items():
                tensor[bad] = before.params[name][bad]
            state.diverged_at[bad] = state.step.to(bad.device)[bad]
            watch(state)

    def _take(self, runs: TrainingRuns, state: State, batches: Batches, i: int) -> None:
        """One step of all networks, in place."""
        active = batches.trains[i] & (state.diverged_at < 0)
        hparams = {**runs.hparams, "lr": batches.lr[i]}
        stored = self._stored(batches, i)
        if self.compiled:  # the compiler's own kernel takes ten times as long for bytes
            stored = self.task.in_floats(stored)
        batch = (
            stored,
            batches.target[i],
            active,
            batches.count[i],
            batches.noise[i],
        )
        step = self._form(self.step.take, runs.optimizer, runs.batch_size, len(runs.ids))
        step(state.params, state.slots, hparams, batch, batches.moves[i], runs.optimizer)
        state.step += 1

    def _stored(self, batches: Batches, i: int) -> Inputs:
        """Inputs of one step as they are stored."""
        return self.task.train.rows(batches.index[i], batches.ids)

    def images(self, batches: Batches, i: int) -> Inputs:
        """Inputs of one step as the networks see them.

        Args:
            batches: The batches.
            i: Which of its steps.

        Returns:
            Inputs `[N, B, ...]` after augmentation, in the units in which they are stored.
        """
        return self.step.augmented(self._stored(batches, i), batches.moves[i])

    def score(
        self,
        params: Params,
        images: Inputs,
        target: Shaped[Tensor, "N X ..."],
        counted: Bool[Tensor, "N X"],
    ) -> tuple[Float64[Tensor, " N"], Float64[Tensor, " N"]]:
        """How networks do on some examples.

        Args:
            params: Effective parameters `[N, *shape]`.
            images: Inputs `[X, ...]`, as they are stored; `[N, X, ...]` if networks have their own.
            target: Targets as each network is to see them.
            counted: Which examples count for which network.

        Returns:
            Sum of the losses, and of the scores of the task, over the examples that count.
        """
        return self._form(self._score, *counted.shape)(params, images, target, counted)

    def _score(
        self,
        params: Params,
        images: Inputs,
        target: Shaped[Tensor, "N X ..."],
        counted: Bool[Tensor, "N X"],
    ) -> tuple[Float64[Tensor, " N"], Float64[Tensor, " N"]]:
        in_dims = (0, 0 if self.task.train.own_inputs else None)
        apply = over_networks(self.architecture, self.architecture.apply, in_dims)
        outputs = apply(params, self.task.inputs(images)).double()
        losses = vmap(self.task.loss.each, in_dims=(0, 0, None))(outputs, target, None)
        scores = vmap(self.task.scores)(outputs, target)
        loss, score = (torch.where(counted, each, 0).double().sum(1) for each in (losses, scores))
        return loss, score

    def _form(self, method: Any, *variant: object) -> Callable[..., Any]:
        """A method as it runs: itself, or compiled for arguments of one kind."""
        if self._kernels is EAGER:
            return method
        key = (method.__name__, *variant)
        if key not in self._forms:
            self._forms[key] = compile_if_possible(method)
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
        return draw_batches(runs, view, state, length, self.task, self.seed, self._kernels)
