"""Ablation.

What each way to handle symmetry changes, alone and together, with paired bootstrap intervals.

Three things handle symmetry: the networks (a population without symmetry), the metanet (invariant
    by construction), and the
treatment. A line is one combination of them at its largest number of training networks. It is
compared with

* its *plain* line: the same metanet and number of training networks, no treatment, the standard
  population;
* the *flat* line: likewise, of the metanet `mlp`, which handles no symmetry itself.

All lines of a target are scored on the same resamples of network ids. A network has the same
hyperparameters, data and initial draws in every population of a zoo, so that the difference of two
lines varies less than either of them.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from metanet.contract import declared
from metanet.inputs.treatments import NONE
from metanet.metrics import METRICS, Estimate, resamples
from metanet.models.table import METANETS
from studies.common.grid import PACKAGES, Measurement, code_fingerprint
from studies.common.intervals import (
    NOT_MEASURED,
    columns_of,
    estimate_of,
    interval_text,
    percentiles,
)
from studies.common.rows import numbers, where
from studies.learnability.config import Learnability
from studies.learnability.plugins import Plugin, why_only_here
from studies.learnability.scores import MATCHED, ScoreCell
from studies.learnability.summary import largest, title

FLAT = "mlp"
STANDARD = "standard"
COMBINED = ["metanet", "treatment", "population"]
COMPARED = ("r2", "kendall_tau")
Samples = dict[str, Float[np.ndarray, "_"]]


@dataclass(frozen=True)
class Handling:
    """One line: how symmetry is handled, and how much there was to learn from."""

    target: str
    metanet: str
    treatment: str
    population: str
    num_train: int


@dataclass(frozen=True)
class AblationCell:
    """What an ablation compares; its needs are the fits, in the order of the lines.

    Attributes:
        lines: The line of each fit.
        matched: Identities of the label-matched test networks of each fit.
        match_minimum: With fewer matched networks their metrics are NaN.
        num_bootstrap: Resamples.
        plugins: Metanets and treatments from elsewhere among them.
    """

    lines: tuple[Handling, ...]
    matched: tuple[tuple[int, ...], ...]
    match_minimum: int
    num_bootstrap: int
    plugins: tuple[Plugin, ...] = ()

    @property
    def name(self) -> str:
        """There is one a study."""
        return "ablation"


def plan_ablation(config: Learnability, planned: Sequence[Measurement]) -> list[Measurement]:
    """Compare all fits of a study whose labels are true.

    Args:
        config: The study's config.
        planned: Measurements of the scores of its fits.

    Returns:
        One measurement.
    """
    scores = [scored for scored in planned if not scored.cell.fit.shuffled]
    plugins = tuple(
        dict.fromkeys(plugin for scored in scores for plugin in scored.cell.fit.plugins)
    )
    cell = AblationCell(
        lines=tuple(_handling(scored.cell) for scored in scores),
        matched=tuple(scored.cell.matched[scored.cell.fit.population] for scored in scores),
        match_minimum=config.match_minimum,
        num_bootstrap=config.num_bootstrap,
        plugins=plugins,
    )
    code = code_fingerprint(*PACKAGES, "metanet", ablate.__module__)
    fits = tuple(fit for scored in scores for fit in scored.needs)
    here = why_only_here(plugins)
    return [Measurement(ablate, cell, planned[0].out, code, needs=fits, only_here=here)]


def _handling(cell: ScoreCell) -> Handling:
    fit = cell.fit
    return Handling(fit.target, fit.metanet, cell.treatment, fit.population, fit.num_train)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Predictions of one fit for the test networks of its population, and which are matched."""

    predictions: pd.DataFrame
    matched: Bool[np.ndarray, "n"]


def ablate(cell: AblationCell, *predictions: pd.DataFrame) -> pd.DataFrame:
    """Compare every way to handle symmetry with none.

    ``gain = mean over seeds of metric - mean over seeds of metric of the plain line``, on the
    networks themselves for the value, on resamples of them for the ends of the 95% interval. A
    resample is a count for each network id; label-matched metrics count the matched networks of
    each line only.

    Args:
        cell: What is compared.
        *predictions: Those of each fit.

    Returns:
        One row for each target, metanet, treatment and population, in this order: `invariant` (what
        the metanet declares), `num_train`, `num_seeds`, `baseline` (the population of the plain
        line), and for R^2 and Kendall's tau, on all and on label-matched test networks, the metric
        `m`, the difference `m_gain` to the plain line and `m_over_flat` to the flat line, each with
        `_low` and `_high`. NaN where there is no such line, or too few matched networks.
    """
    for plugin in cell.plugins:
        plugin.register()
    seeds: dict[str, dict[Handling, list[_Scored]]] = {}
    for line, ids, table in zip(cell.lines, cell.matched, predictions, strict=True):
        here = where(table, test_population=line.population)
        matched = np.isin(here["network_id"].to_numpy(), ids)
        matched &= matched.sum() >= cell.match_minimum
        of_target = seeds.setdefault(line.target, {})
        of_target.setdefault(line, []).append(_Scored(here, matched))
    return pd.DataFrame(
        [row for lines in seeds.values() for row in _compare(lines, cell.num_bootstrap)]
    )


def _compare(lines: Mapping[Handling, list[_Scored]], num_bootstrap: int) -> list[dict[str, Any]]:
    """The rows of one target."""
    populations = [line.population for line in lines]
    baseline = STANDARD if STANDARD in populations else populations[0]
    compared = _comparisons(lines, baseline)
    wanted = set(compared).union(*(others.values() for others in compared.values()))
    samples = _samples({line: lines[line] for line in lines if line in wanted}, num_bootstrap)
    rows = []
    for line, others in compared.items():
        row = {
            **vars(line),
            "invariant": declared(METANETS[line.metanet]).invariant,
            "num_seeds": len(lines[line]),
            "baseline": baseline,
        }
        for metric, values in samples[line].items():
            row |= columns_of(metric, _estimate(values))
            for name, other in others.items():
                there = samples[other][metric] if other in samples else np.nan
                row |= columns_of(f"{metric}_{name}", _estimate(values - there))
        rows.append(row)
    return rows


def _comparisons(lines: Iterable[Handling], baseline: str) -> dict[Handling, dict[str, Handling]]:
    """Each combination at its largest number of networks, with its plain and its flat line."""
    table = largest(pd.DataFrame([vars(line) for line in lines]), COMBINED)
    compared = {}
    for line in (Handling(**values) for values in table.to_dict("records")):
        plain = replace(line, treatment=NONE, population=baseline)
        compared[line] = {"gain": plain, "over_flat": replace(plain, metanet=FLAT)}
    return compared


def _samples(
    lines: Mapping[Handling, list[_Scored]], num_bootstrap: int
) -> dict[Handling, Samples]:
    """Metrics of each line, mean over seeds: on all test networks, then on each resample."""
    every = [one.predictions["network_id"].to_numpy() for part in lines.values() for one in part]
    ids = np.unique(np.concatenate(every))
    counts = resamples(len(ids), num_bootstrap, seed=0)
    samples = {}
    for line, scored in lines.items():
        seeds = [_metrics_of_seed(one, ids, counts) for one in scored]
        samples[line] = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in seeds[0]}
    return samples


def _metrics_of_seed(
    scored: _Scored, ids: Int[np.ndarray, "i"], counts: Float[np.ndarray, "r i"]
) -> Samples:
    """Metrics of one fit on all and on its matched networks under each row of counts of ids."""
    here = counts[:, np.searchsorted(ids, scored.predictions["network_id"].to_numpy())]
    values = _metrics(scored.predictions, here, np.ones_like(scored.matched))
    on_matched = _metrics(scored.predictions, here, scored.matched)
    return values | {MATCHED + name: scores for name, scores in on_matched.items()}


def _metrics(
    predictions: pd.DataFrame, counts: Float[np.ndarray, "r n"], kept: Bool[np.ndarray, "n"]
) -> Samples:
    """Each metric of the kept networks under each row of counts; NaN where a row has none."""
    values = {metric: np.full(len(counts), np.nan) for metric in COMPARED}
    inside = counts[:, kept].sum(1) > 0
    truth, prediction = (predictions[name].to_numpy()[kept] for name in ("truth", "prediction"))
    if kept.sum() >= 2:
        for metric in COMPARED:
            values[metric][inside] = METRICS[metric](truth, prediction, counts[inside][:, kept])
    return values


def _estimate(values: Float[np.ndarray, "_"]) -> Estimate:
    resampled = values[1:][np.isfinite(values[1:])]
    if not (np.isfinite(values[0]) and resampled.size):
        return NOT_MEASURED._replace(value=float(values[0]))
    return percentiles(values[0], resampled)


def ablation_cells(lines: pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """The lines of an ablation as text.

    Args:
        lines: Lines of one target of `ablate`.
        prefix: `matched_` for the label-matched test networks.

    Returns:
        Columns metanet, its invariance, treatment, population, and for each metric its value, the
        difference to the plain line and to the flat one. `-` marks the line itself, `n/a` what was
        not measured.
    """
    cells = pd.DataFrame({"metanet": lines["metanet"], "invariant to": lines["invariant"]})
    cells = cells.assign(treatment=lines["treatment"], population=lines["population"])
    records = lines.to_dict("records")
    for metric in COMPARED:
        name, shown = prefix + metric, title(metric)
        cells[shown] = [_number(record[name]) for record in records]
        cells[f"\u0394{shown} to plain"] = [
            _difference(record, f"{name}_gain", _is_plain(record)) for record in records
        ]
        if np.isfinite(numbers(lines, f"{name}_over_flat")).any():
            cells[f"\u0394{shown} to {FLAT}"] = [
                _difference(
                    record, f"{name}_over_flat", _is_plain(record) and record["metanet"] == FLAT
                )
                for record in records
            ]
    return cells


def explain_ablation(lines: pd.DataFrame) -> str:
    """What the differences are.

    Args:
        lines: Lines of one target of `ablate`.

    Returns:
        Sentences.
    """
    baseline = lines["baseline"].iloc[0]
    flat = (
        f" To {FLAT}: the same of the metanet {FLAT}, which handles no symmetry."
        if FLAT in set(lines["metanet"])
        else ""
    )
    return (
        "Plain: the same metanet and number of training networks, no treatment, population "
        f"{baseline}.{flat} Differences of "
        "means over seeds with paired [95% bootstrap interval] over the ids of test networks, "
        "which name the same draws in "
        f"every population; * marks an interval without 0."
    )


def _is_plain(record: Mapping[Hashable, Any]) -> bool:
    return record["treatment"] == NONE and record["population"] == record["baseline"]


def _number(value: int | float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "n/a"


def _difference(record: Mapping[Hashable, Any], name: str, is_itself: bool) -> str:
    if is_itself:
        return "-"
    difference = estimate_of(record, name)
    is_clear = difference.low > 0 or difference.high < 0
    return interval_text(difference, "+.2f") + "*" * is_clear
