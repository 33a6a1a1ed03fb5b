"""Ablation: what each way to handle symmetry changes, alone and together, with paired bootstrap intervals.

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
from jaxtyping import Bool, Float

from metanet.inputs.treatments import NONE
from metanet.metrics import METRICS
from metanet.models.table import METANETS
from studies.learnability.fits import Predictions, load_predictions
from studies.learnability.scores import MATCHED, Task
from studies.learnability.summary import title

FLAT = "mlp"
STANDARD = "standard"
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


def ablate(tasks: Sequence[Task], num_bootstrap: int) -> pd.DataFrame:
    """Compare every way to handle symmetry with none.

    ``gain = mean over seeds of metric - mean over seeds of metric of the plain line``, on the
    networks themselves for the value, on resamples of them for the ends of the 95% interval. A
    resample is a count for each network id; label-matched metrics count the matched networks of
    each line only.

    Args:
        tasks: Tasks that are done.
        num_bootstrap: Resamples.

    Returns:
        One row for each target, metanet, treatment and population, in this order: `invariant` (what
        the metanet declares), `num_train`, `num_seeds`, `baseline` (the population of the plain
        line), and for R^2 and Kendall's tau, on all and on label-matched test networks, the metric
        `m`, the difference `m_gain` to the plain line and `m_over_flat` to the flat line, each with
        `_low` and `_high`. NaN where there is no such line, or too few matched networks.
    """
    lines: dict[Handling, list[Task]] = {}
    for task in tasks:
        cell = task.cell
        if not cell.shuffled:
            line = Handling(
                cell.target, cell.metanet, task.treatment, cell.population, cell.num_train
            )
            lines.setdefault(line, []).append(task)
    found = []
    for target in dict.fromkeys(line.target for line in lines):
        ours = {line: group for line, group in lines.items() if line.target == target}
        populations = {line.population: None for line in ours}
        baseline = STANDARD if STANDARD in populations else next(iter(populations))
        shown = _largest(ours)
        compared = {
            line: (_plain(line, baseline), replace(_plain(line, baseline), metanet=FLAT))
            for line in shown
        }
        wanted = {other for line in shown for other in (line, *compared[line]) if other in ours}
        samples = _samples(
            {line: group for line, group in ours.items() if line in wanted}, num_bootstrap
        )
        for line in shown:
            plain, flat = (samples.get(other) for other in compared[line])
            found.append(_row(line, len(ours[line]), baseline, samples[line], plain, flat))
    return pd.DataFrame(found)


def _plain(line: Handling, baseline: str) -> Handling:
    return replace(line, treatment=NONE, population=baseline)


def _largest(lines: Iterable[Handling]) -> list[Handling]:
    """Each combination at its largest number of training networks, by metanet, treatment, population as they appear."""
    best: dict[tuple[str, str, str], Handling] = {}
    for line in lines:
        key = (line.metanet, line.treatment, line.population)
        if key not in best or line.num_train > best[key].num_train:
            best[key] = line
    ranks = [
        {name: rank for rank, name in enumerate(dict.fromkeys(names))}
        for names in zip(*best, strict=True)
    ]
    return [
        best[key]
        for key in sorted(
            best, key=lambda key: [rank[name] for rank, name in zip(ranks, key, strict=True)]
        )
    ]


def _samples(lines: Mapping[Handling, list[Task]], num_bootstrap: int) -> dict[Handling, Samples]:
    """Metrics of each line, mean over seeds: first on the test networks themselves, then on each resample of their ids."""
    own = {
        line: [load_predictions(task.predictions_path)[line.population] for task in group]
        for line, group in lines.items()
    }
    ids = np.unique(
        np.concatenate([predictions.network_id for group in own.values() for predictions in group])
    )
    counts = np.random.default_rng(0).multinomial(
        len(ids), np.full(len(ids), 1 / len(ids)), size=num_bootstrap
    )
    counts = np.concatenate([np.ones((1, len(ids))), counts.astype(np.float64)])
    samples = {}
    for line, group in lines.items():
        seeds = []
        for task, predictions in zip(group, own[line], strict=True):
            matched = np.isin(predictions.network_id, task.matched[line.population])
            matched &= matched.sum() >= task.match_minimum
            here = counts[:, np.searchsorted(ids, predictions.network_id)]
            parts = {"": np.ones_like(matched), MATCHED: matched}
            seeds.append(
                {
                    p + name: v
                    for p, kept in parts.items()
                    for name, v in _metrics(predictions, here, kept).items()
                }
            )
        samples[line] = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in seeds[0]}
    return samples


def _metrics(
    predictions: Predictions, counts: Float[np.ndarray, "r n"], kept: Bool[np.ndarray, "n"]
) -> Samples:
    """Each metric of the kept networks under each row of counts; NaN where none of them is in a resample."""
    values = {metric: np.full(len(counts), np.nan) for metric in COMPARED}
    inside = counts[:, kept].sum(1) > 0
    if kept.sum() >= 2:
        for metric in COMPARED:
            truth, prediction = predictions.truth[kept], predictions.prediction[kept]
            values[metric][inside] = METRICS[metric](truth, prediction, counts[inside][:, kept])
    return values


def _row(
    line: Handling,
    num_seeds: int,
    baseline: str,
    samples: Samples,
    plain: Samples | None,
    flat: Samples | None,
) -> dict[str, Any]:
    row = {
        **vars(line),
        "invariant": getattr(METANETS[line.metanet], "invariant", "nothing"),
        "num_seeds": num_seeds,
        "baseline": baseline,
    }
    for metric, values in samples.items():
        absent = np.full_like(values, np.nan)
        row |= _estimate(metric, values)
        row |= _estimate(f"{metric}_gain", values - plain[metric] if plain else absent)
        row |= _estimate(f"{metric}_over_flat", values - flat[metric] if flat else absent)
    return row


def _estimate(name: str, values: Float[np.ndarray, "_"]) -> dict[str, float]:
    resampled = values[1:][np.isfinite(values[1:])]
    low, high = (
        np.quantile(resampled, [0.025, 0.975])
        if np.isfinite(values[0]) and resampled.size
        else (np.nan, np.nan)
    )
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


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
        if np.isfinite(lines[f"{name}_over_flat"].to_numpy()).any():
            flat = [_is_plain(record) and record["metanet"] == FLAT for record in records]
            over = [
                _difference(record, f"{name}_over_flat", own)
                for record, own in zip(records, flat, strict=True)
            ]
            cells[f"\u0394{shown} to {FLAT}"] = over
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
        f"Plain: the same metanet and number of training networks, no treatment, population {baseline}.{flat} Differences of "
        f"means over seeds with paired [95% bootstrap interval] over the ids of test networks, which name the same draws in "
        f"every population; * marks an interval without 0."
    )


def _is_plain(record: Mapping[Hashable, Any]) -> bool:
    return record["treatment"] == NONE and record["population"] == record["baseline"]


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "n/a"


def _difference(record: Mapping[Hashable, Any], name: str, is_itself: bool) -> str:
    value, low, high = (record[f"{name}{end}"] for end in ("", "_low", "_high"))
    if is_itself:
        return "-"
    if not np.isfinite(value):
        return "n/a"
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]{'*' if low > 0 or high < 0 else ''}"
