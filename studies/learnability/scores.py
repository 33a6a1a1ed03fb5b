"""Rows of a study: the metrics of a cell's predictions on all test networks and on the label-matched ones, kept in a file."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from metanet.inputs.treatments import NONE
from metanet.metrics import METRICS, bootstrap
from studies.learnability.fits import (
    Cell,
    Predictions,
    cell_path,
    fit,
    load_predictions,
    save_predictions,
)
from studies.learnability.plugins import Plugin
from zoo.store.atomic import write_text

MATCHED = "matched_"
TRUE, SHUFFLED = "true", "shuffled"


@dataclass(frozen=True)
class Task:
    """A cell and how it is scored: one row for each place where it predicts.

    Attributes:
        cell: The fit.
        treatment: Label of its treatment.
        matched: Identities of the label-matched test networks, by name of the place.
        match_minimum: With fewer matched networks their metrics are NaN.
        num_bootstrap: Number of bootstrap samples of an interval.
        out: Directory of the study.
        plugins: Metanets and treatments from elsewhere that it needs.
    """

    cell: Cell
    treatment: str
    matched: Mapping[str, tuple[int, ...]]
    match_minimum: int
    num_bootstrap: int
    out: Path
    plugins: tuple[Plugin, ...] = ()

    @property
    def predictions_path(self) -> Path:
        """File of the cell's predictions."""
        return cell_path(self.out, self.cell)

    def scores_path(self, place: str) -> Path:
        """File of the metrics; its name changes when the cell, the matched networks or the bootstrap do."""
        identity = json.dumps(
            [self.cell.key, place, self.matched[place], self.match_minimum, self.num_bootstrap]
        )
        return self.out / "scores" / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to compute."""
        paths = (
            self.predictions_path,
            *(self.scores_path(place.name) for place in self.cell.places),
        )
        return all(path.is_file() for path in paths)


def complete(task: Task) -> None:
    """Fit the cell unless its predictions are there, then score them unless that is done.

    Args:
        task: What to do.

    Raises:
        ValueError: If the metanet cannot be fitted; the message names the cell.
    """
    for plugin in task.plugins:
        plugin.register()
    path, cell = task.predictions_path, task.cell
    if not path.is_file():
        try:
            found = fit(cell, task.out)
        except ValueError as error:
            where = f"metanet {cell.metanet!r} on population {cell.population!r}, {cell.num_train} training networks"
            treated = f"treatment {task.treatment!r}, " if task.treatment != NONE else ""
            raise ValueError(f"{where}, {treated}seed {cell.seed}: {error}") from error
        save_predictions(path, found)
    for place, predictions in load_predictions(path).items():
        if not task.scores_path(place).is_file():
            write_text(task.scores_path(place), json.dumps(_scores(task, place, predictions)))


def read_rows(task: Task) -> list[dict[str, Any]]:
    """The rows of a task that is done.

    Args:
        task: The task.

    Returns:
        Values by column, for each place; a metric `m` has its 95% interval in `m_low` and `m_high`,
        its label-matched twin is `matched_m`.
    """
    cell = task.cell
    asked = {
        "population": cell.population,
        "metanet": cell.metanet,
        "treatment": task.treatment,
        "labels": SHUFFLED if cell.shuffled else TRUE,
        "target": cell.target,
        "seed": cell.seed,
        "num_train": cell.num_train,
    }
    return [
        {
            **asked,
            "test_population": place.name,
            **json.loads(task.scores_path(place.name).read_text(encoding="utf-8")),
            "cell": cell.key,
        }
        for place in cell.places
    ]


def _scores(task: Task, place: str, predictions: Predictions) -> dict[str, Any]:
    matched = np.isin(predictions.network_id, task.matched[place])
    num_matched = int(matched.sum())
    note = ""
    if num_matched < task.match_minimum:
        note = f"only {num_matched} label-matched test networks, {task.match_minimum} needed"
    truth, prediction = predictions.truth, predictions.prediction
    matched_metrics = _metrics(
        truth[matched], prediction[matched], task.num_bootstrap if not note else 0
    )
    return {
        "n_train": predictions.num_train,
        "n_test": truth.size,
        "num_dropped": predictions.num_dropped,
        "seconds": predictions.seconds,
        **_metrics(truth, prediction, task.num_bootstrap),
        "n_matched": num_matched,
        **{MATCHED + name: value for name, value in matched_metrics.items()},
        "note": note,
    }


def _metrics(
    truth: Float[np.ndarray, "n"], prediction: Float[np.ndarray, "n"], num_bootstrap: int
) -> dict[str, float]:
    """Each metric and its interval; NaN without bootstrap samples, or with fewer than two networks."""
    if not num_bootstrap or truth.size < 2:
        return {f"{metric}{end}": math.nan for metric in METRICS for end in ("", "_low", "_high")}
    values = {}
    for metric, estimate in bootstrap(truth, prediction, num_bootstrap=num_bootstrap).items():
        values |= {
            metric: estimate.value,
            f"{metric}_low": estimate.low,
            f"{metric}_high": estimate.high,
        }
    return values
