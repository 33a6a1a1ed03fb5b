"""The report of a learnability study."""

from pathlib import Path

import numpy as np
import pandas as pd

from metanet.inputs.treatments import NONE
from studies.common.figures import words
from studies.common.page import Report, Table, figure, heading, paragraph, quiet, section, table
from studies.common.rows import numbers, split_by, where
from studies.learnability.ablation import ablation_cells, explain_ablation
from studies.learnability.config import FLOOR, Learnability
from studies.learnability.efficiency import efficiency_cells, efficiency_lines, explain_efficiency
from studies.learnability.fits import open_population, read_labels
from studies.learnability.plots import LOWEST, plot_curves, plot_labels, plot_predictions
from studies.learnability.scores import MATCHED, TRUE
from studies.learnability.summary import (
    abroad,
    average_seeds,
    explain,
    home,
    largest,
    notes,
    table_cells,
    title,
)
from studies.learnability.transfer import impossible
from zoo.store.zoo import load
from zoo.views import PopulationLike

METRICS = ("r2", "kendall_tau", "spearman", "mae")
NOT_FUNCTIONS = ("sharpness", "squared_weight_norm")
NOT_A_FUNCTION = (
    "{} is no property of the function that a network computes: networks with the same function "
    "can differ in it. A symmetry "
    "that changes it, such as the scales of ReLU neurons, must not be taken away (treatment "
    "canonicalize with scales: false), "
    "nor a metanet be invariant to it."
)
MATCHED_WHY = (
    "Label-matched: in each bin of the target every population keeps as many test networks, drawn "
    "at random, as the population "
    "with the fewest has there, so that “easier to predict” cannot mean “different labels”."
)


def make_report(config: Learnability, rows: pd.DataFrame, out: Path) -> Report:
    """The page of the study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, with the cells in it.

    Returns:
        Its parts.
    """
    ablation = pd.read_parquet(out / "ablation.parquet")
    populations, metanets = rows["population"].nunique(), rows["metanet"].nunique()
    lead = (
        f"How well {metanets} metanets predict a network's "
        f"{', '.join(map(words, config.targets))} from its weights, in {populations} populations "
        f"of the zoo {config.zoo.name}. The metanet {FLOOR} is the floor: it sees no weights, only "
        f"the hyperparameters that a network was trained with."
    )
    parts = [heading("Learnability", 1), paragraph(lead)]
    for target in config.targets:
        here = where(rows, target=target)
        averages = average_seeds(home(here))
        parts += _scores(config, here, averages, target, out)
        parts += _curves(averages)
        parts += _ablation(where(ablation, target=target))
        parts += _efficiency(averages, config)
        parts += _predictions(config, here, averages, target, out)
        parts += _matched(averages)
        parts += _transfer(config, here)
    return Report(f"Learnability: {config.zoo.name}", parts, _facts(config, rows))


def _scores(
    config: Learnability, rows: pd.DataFrame, averages: pd.DataFrame, target: str, out: Path
) -> list[str]:
    best = largest(averages)
    parts = [heading(f"Predicting {words(target)}"), table(table_cells(best, METRICS))]
    parts += [quiet(text) for text in (" ".join(explain(best)), *notes(home(rows)))]
    populations = _open_populations(config, target, out).values()
    is_hyperparameter = any(target in population.hyperparameters for population in populations)
    if target in NOT_FUNCTIONS or is_hyperparameter:
        parts.append(quiet(NOT_A_FUNCTION.format(words(target).capitalize())))
    return parts


def _open_populations(config: Learnability, target: str, out: Path) -> dict[str, PopulationLike]:
    names = load(config.zoo).choose(config.population_names)
    return {name: open_population(config.zoo, name, target, out / "derived") for name in names}


def _predictions(
    config: Learnability, rows: pd.DataFrame, averages: pd.DataFrame, target: str, out: Path
) -> list[str]:
    """Predicted against true targets, then the true ones."""
    plain = where(home(rows), labels=TRUE, treatment=NONE)
    scatter = plot_predictions(plain, main_metanets(largest(averages)), target, out)
    caption = (
        f"Predicted against true {words(target)} of the test networks, seed "
        f"{rows['seed'].iloc[0]}; on the dashed line the prediction is exact."
    )
    parts = [heading("Predicted against true"), figure(scatter, caption)]
    labels = {
        name: np.concatenate(
            [read_labels(population, split, target).y.numpy() for split in population.splits]
        )
        for name, population in _open_populations(config, target, out).items()
    }
    caption = (
        f"{words(target).capitalize()} of all networks with a finite value, by population; "
        f"dashed: the median."
    )
    drawn = figure(plot_labels(labels, target), caption)
    return [*parts, heading("What there is to predict"), drawn]


def _matched(averages: pd.DataFrame) -> list[str]:
    cells = table_cells(largest(averages), [MATCHED + metric for metric in METRICS])
    title = heading("The same on label-matched test networks")
    return [title, paragraph(MATCHED_WHY), table(cells)]


def _curves(averages: pd.DataFrame) -> list[str]:
    """Learning curves without treatment, then those of each treated metanet."""
    learned = where(averages, labels=TRUE)
    plain = where(learned, treatment=NONE)
    parts = [heading("Learning curves")]
    for metric in ("r2", "kendall_tau"):
        caption = (
            f"{title(metric)} against the number of training networks, no treatment: mean over "
            "seeds; bands: 95% bootstrap "
            f"interval over test networks, mean over seeds. Scores below {LOWEST} are cut off."
        )
        parts.append(figure(plot_curves(plain, metric), caption))
    treated = learned.loc[learned["treatment"] != NONE]
    for metanet, lines in split_by(treated, "metanet"):
        sizes = lines["num_train"].unique().tolist()
        if len(sizes) > 1:
            here = learned["metanet"].eq(metanet) & learned["num_train"].isin(sizes)
            drawn = plot_curves(learned.loc[here], "r2", "population", "treatment")
            told = f"{title('r2')} with each treatment, one panel a population; as above."
            parts.append(figure(drawn, f"{metanet}: {told}"))
    return parts


def _ablation(ablation: pd.DataFrame) -> list[str]:
    parts = [heading("What each way to handle symmetry buys")]
    parts.append(paragraph(explain_ablation(ablation)))
    parts += [heading("All test networks", 3), table(ablation_cells(ablation))]
    if np.isfinite(numbers(ablation, f"{MATCHED}r2")).any():
        parts.append(heading("Label-matched test networks", 3))
        parts.append(table(ablation_cells(ablation, MATCHED)))
    return parts


def _efficiency(averages: pd.DataFrame, config: Learnability) -> list[str]:
    lines = efficiency_lines(where(averages, labels=TRUE), config.reach)
    if lines.empty:
        return []
    cells, note = efficiency_cells(lines), explain_efficiency(lines)
    return section(Table("Networks needed", cells, note))


def _transfer(config: Learnability, rows: pd.DataFrame) -> list[str]:
    if not config.transfer and not config.transfer_zoos:
        return []
    parts = [heading("Transfer to other populations")]
    if not abroad(rows).empty:
        parts.append(table(table_cells(largest(average_seeds(abroad(rows))), METRICS)))
    populations = load(config.zoo).choose(config.population_names)
    return parts + [quiet(text) for text in impossible(config, populations)]


def main_metanets(best: pd.DataFrame) -> list[str]:
    """The metanets whose predictions are shown."""
    # The flat `mlp`, if there, and the best one but the floor, by mean R^2.
    plain = where(best, labels=TRUE, treatment=NONE)
    means = pd.Series(plain.groupby("metanet", sort=False)["r2"].mean()).to_dict()
    if len(means) > 1:
        means.pop(FLOOR, None)
    best_name = max(means, key=means.__getitem__)
    return list(dict.fromkeys([*(["mlp"] if "mlp" in means else []), best_name]))


def _facts(config: Learnability, rows: pd.DataFrame) -> dict[str, str]:
    seconds = pd.Series(home(rows).groupby("metanet", sort=False)["seconds"].sum()).to_dict()
    return {
        "cells": f"{len(home(rows))}, seeds {', '.join(map(str, config.seeds))}",
        "seconds of one core": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
    }
