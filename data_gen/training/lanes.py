"""Any number of networks in a fixed number of lanes; one that stops makes room for the next."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from data_gen.training.recorder import Recorder
from data_gen.training.runs import TrainingRuns, draw_view
from data_gen.training.state import State
from data_gen.training.trainer import STEPS_AHEAD, Trainer
from zoo.params import Params, select


class Lanes:
    """Trains networks in lock step, longest training first; each ends as if it trained alone.

    When a network has stopped and the batches made ahead are used up, its lane goes to the next.
    Lanes that nobody waits for are closed, unless the step is compiled for their number.

    Args:
        trainer: Who trains.
        runs: All networks.
        params: Their initial parameters `[N, *shape]`, before the scale of the initialization.
        count: Number of lanes, at most.
        recorder: Keeps checkpoints.
        report: Called with the number of networks that have just stopped.
    """

    def __init__(
        self,
        trainer: Trainer,
        runs: TrainingRuns,
        params: Params,
        count: int,
        recorder: Recorder | None = None,
        report: Callable[[int], object] = lambda _: None,
    ):
        self._trainer, self._runs, self._params = trainer, runs, params
        self._count, self._recorder, self._report = count, recorder, report
        self._steps = runs.steps.cpu()
        self._waiting = torch.argsort(self._steps, descending=True, stable=True).tolist()
        self._trains = torch.ones(len(self._waiting), dtype=torch.bool)
        self._final = {name: tensor.clone() for name, tensor in params.items()}
        self._diverged_at = torch.full_like(runs.ids, -1)

    def run(self) -> tuple[Params, Int64[Tensor, " N"]]:
        """Train all networks.

        Returns:
            Final parameters, of a diverged network the last finite ones, and the step at which a
            network diverged, or -1.
        """
        rows, state = self._next(self._count)
        while self._trains.any():
            self._train_until_one_ends(rows, state)
            self._keep(rows, state)
            rows, state = self._replace(rows, state)
        return self._final, self._diverged_at

    def _next(self, count: int) -> tuple[list[int], State]:
        """The networks whose turn it is, at their start."""
        rows, self._waiting = self._waiting[:count], self._waiting[count:]
        chosen = torch.tensor(rows, dtype=torch.int64)
        params = select(self._params, chosen.to(self._runs.ids.device))
        state = self._trainer.start(self._runs.take(chosen), params)
        self._see(rows, state)
        return rows, state

    def _see(self, rows: list[int], state: State) -> None:
        if self._recorder is not None:
            self._recorder.see(rows, state)

    def _train_until_one_ends(self, rows: list[int], state: State) -> None:
        runs = self._runs.take(torch.tensor(rows))
        view = draw_view(runs, self._trainer.task, self._trainer.seed)
        watch = partial(self._see, rows)
        while not self._ended(rows, state).any():
            left = int((self._steps[rows] - state.step).max())
            self._trainer.advance(runs, view, state, min(left, STEPS_AHEAD), watch)

    def _ended(self, rows: list[int], state: State) -> Bool[Tensor, " N"]:
        """Which lanes hold a network that trained until now."""
        return self._trains[rows] & (
            (state.step >= self._steps[rows]) | (state.diverged_at.cpu() >= 0)
        )

    def _keep(self, rows: list[int], state: State) -> None:
        lanes = self._ended(rows, state).nonzero()[:, 0]
        ended = [rows[lane] for lane in lanes]
        last = state.take(lanes)
        for name, tensor in last.params.items():
            self._final[name][ended] = tensor
        self._diverged_at[ended] = last.diverged_at
        self._trains[ended] = False
        if self._recorder is not None:
            self._recorder.end(ended, last)
        self._report(len(ended))

    def _replace(self, rows: list[int], state: State) -> tuple[list[int], State]:
        """Networks that still train, and those that take the place of the others."""
        trains = self._trains[rows]
        num_training = int(trains.sum())
        joining = min(len(rows) - num_training, len(self._waiting))
        num_staying = len(rows) - joining if self._trainer.compiled else num_training
        stay = trains.argsort(descending=True, stable=True)[:num_staying]  # who trains comes first
        state, rows = state.take(stay), [rows[lane] for lane in stay]
        if not joining:
            return rows, state
        new_rows, new_state = self._next(joining)
        return rows + new_rows, state.join(new_state)
