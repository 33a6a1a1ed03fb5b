"""What the conserved quantities of an initialization tell about the network that comes of it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from metanet.estimator import Metanet
from studies.common.computed_targets import with_derived
from studies.common.evaluation import checkpoints, evaluate, first_images
from studies.common.grid import PLACE
from studies.common.intervals import columns_of
from zoo.params import Params, select
from zoo.store.population import Population
from zoo.store.zoo import load
from zoo.views import PopulationView, view
from zoo.weight_space import NeuronGroup, WeightSpace

HALF_TIME = "half_time"


@dataclass(frozen=True)
class PredictionCell:
    """A target of a population to be predicted; one cell of the study.

    Attributes:
        zoo: Directory of the zoo.
        fingerprint: Identity of the population's content.
        population: Its name.
        target: What is predicted.
        bridges: What it is predicted from.
        num_train: Training images that `half_time` is measured on.
        seed: Of the metanets.
        num_bootstrap: Resamples of an interval.
        folder: Where computed targets are kept.
    """

    zoo: Path = field(metadata=PLACE)
    fingerprint: str
    population: str
    target: str
    bridges: tuple[str, ...]
    num_train: int
    seed: int
    num_bootstrap: int
    folder: Path = field(metadata=PLACE)

    @property
    def name(self) -> str:
        """Population and target."""
        return f"population {self.population!r}, predicting {self.target!r}"


def measure(cell: PredictionCell) -> pd.DataFrame:
    """Fit trees on statistics of what a bridge shows of training networks; predict test networks.

    Args:
        cell: What to predict.

    Returns:
        A row for each bridge: Kendall's tau and R^2 on the test networks with their intervals,
            their number `n`, and the number
        of test networks `dropped` that have no such target.
    """
    population, rows = load(cell.zoo)[cell.population], []
    tables = {split: table_of(cell, population, split) for split in population.splits}
    left_out = tables["test"]["diverged"].to_numpy(bool)
    for bridge in cell.bridges:
        predictor = shown(population, bridge, tables)
        name = "hparams" if bridge == "hyperparameters" else "gbm"
        metanet = Metanet(name, target=cell.target, seed=cell.seed)
        with warnings.catch_warnings():  # networks that are left out are counted below
            warnings.filterwarnings("ignore", message=".*networks that diverged and have no finite")
            fitted = metanet.fit(predictor)
            scores = fitted.evaluate(predictor, "test", num_bootstrap=cell.num_bootstrap)
        row = {"bridge": bridge}
        for metric in ("kendall_tau", "r2"):
            row |= columns_of(metric, scores[metric])
        rows.append({**row, "n": int((~left_out).sum()), "dropped": int(left_out.sum())})
    return pd.DataFrame(rows).assign(population=cell.population, target=cell.target, part="bridges")


def table_of(cell: PredictionCell, population: Population, split: str) -> pd.DataFrame:
    """Hyperparameters, metrics and the target.

    Networks that never halve their loss count as diverged.

    Args:
        cell: The target, and how it is computed.
        population: The population.
        split: Name of the split.

    Returns:
        One row a network.
    """
    table = with_derived(population, [cell.target], cell.folder).table(split)
    if cell.target != HALF_TIME:
        return table
    reached = half_times(population, split, cell.num_train)
    # metanets leave out networks that are marked so, and count them
    return table.assign(half_time=reached, diverged=table["diverged"] | np.isnan(reached))


def shown(
    population: Population, bridge: str, tables: Mapping[str, pd.DataFrame]
) -> PopulationView:
    """A population of which a metanet is shown one thing.

    Args:
        population: The population.
        bridge: `"conserved"`, the quantities of the initialization, by law; `"initial"` or
            `"final"`, the parameters; with `"hyperparameters"` the parameters do not matter.
        tables: For each split the table with the target.

    Returns:
        The view.
    """
    table = tables.__getitem__
    if bridge == "conserved":
        params = partial(initial_quantities, population)
        sizes = {law: values[0].numel() for law, values in params("train").items()}
        groups = {law: NeuronGroup(size) for law, size in sizes.items()}
        space = WeightSpace(groups, {law: law for law in sizes})
        return view(population, table=table, params=params, space=space, free={})
    if bridge == "initial":
        return view(population, table=table, params=partial(initial_params, population))
    return view(population, table=table)


def initial_quantities(population: Population, split: str) -> Params:
    """Conserved quantities `[N, size]` of the initialization, by law."""
    _, quantities, _ = population.conservation(split)
    return {law: values[:, 0].flatten(1) for law, values in quantities.items()}


def initial_params(population: Population, split: str) -> Params:
    """Parameters `[N, *shape]` of the initialization."""
    return select(checkpoints(population, split)[1], (slice(None), 0))


def half_times(population: Population, split: str, num_train: int) -> Float[np.ndarray, " N"]:
    """Steps until the training loss is half of that at the start, linear between checkpoints.

    Args:
        population: A population with checkpoints.
        split: Name of the split.
        num_train: Training images, the first ones.

    Returns:
        Steps; NaN of networks that do not get there, or diverged.
    """
    steps, params = checkpoints(population, split)
    networks = {name: tensor.flatten(0, 1) for name, tensor in params.items()}
    part = first_images(population, num_train, 0)["train"]
    losses, _ = evaluate(population.architecture, networks, part)
    return first_crossings(steps.astype(np.float64), losses.reshape(steps.shape))


def first_crossings(
    steps: Float[np.ndarray, "N T"], losses: Float[np.ndarray, "N T"]
) -> Float[np.ndarray, " N"]:
    """Where curves first come down to half of their first value.

    Args:
        steps: Where they were measured, increasing.
        losses: Values.

    Returns:
        The places, NaN of curves that do not come down so far.
    """
    goal = losses[:, :1] / 2
    below = losses <= goal
    after = below.argmax(1)
    row, before = np.arange(len(losses)), np.maximum(after - 1, 0)
    drop = losses[row, before] - losses[row, after]
    share = (losses[row, before] - goal[:, 0]) / np.where(drop > 0, drop, 1)
    place = steps[row, before] + share * (steps[row, after] - steps[row, before])
    return np.where(below.any(1) & np.isfinite(losses).all(1), place, np.nan)
