"""Second stage: metrics of predictions, on all test networks and on the label-matched ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from metanet.metrics import METRICS, bootstrap
from studies.common.intervals import NOT_MEASURED, columns_of
from studies.learnability.fits import FitCell

MATCHED = "matched_"
TRUE, SHUFFLED = "true", "shuffled"


@dataclass(frozen=True)
class ScoreCell:
    """How the predictions of a fit are scored.

    Attributes:
        fit: The fit.
        fit_key: Key of its measurement, under which its predictions are kept.
        treatment: Label of its treatment.
        matched: Identities of the label-matched test networks, by name of the place.
        match_minimum: With fewer matched networks their metrics are NaN.
        num_bootstrap: Number of bootstrap samples of an interval.
    """

    fit: FitCell
    fit_key: str
    treatment: str
    matched: Mapping[str, tuple[int, ...]]
    match_minimum: int
    num_bootstrap: int

    @property
    def name(self) -> str:
        """The name of the fit."""
        return self.fit.name


def score(cell: ScoreCell, predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of a fit.

    Args:
        cell: How to score it.
        predictions: What `fit` returned.

    Returns:
        One row for each place; a metric `m` has its 95% interval in `m_low` and `m_high`, its
        label-matched twin is `matched_m`.
    """
    fit = cell.fit
    names = {
        "population": fit.population,
        "metanet": fit.metanet,
        "treatment": cell.treatment,
        "labels": SHUFFLED if fit.shuffled else TRUE,
        "target": fit.target,
        "seed": fit.seed,
        "num_train": fit.num_train,
    }
    rows = []
    for place, here in predictions.groupby("test_population", sort=False):
        scores = _scores(cell, str(place), here)
        rows.append({**names, "test_population": place, **scores, "cell": cell.fit_key})
    return pd.DataFrame(rows)


def _scores(cell: ScoreCell, place: str, predictions: pd.DataFrame) -> dict[str, Any]:
    truth, prediction = (predictions[name].to_numpy() for name in ("truth", "prediction"))
    matched = np.isin(predictions["network_id"].to_numpy(), cell.matched[place])
    num_matched, minimum = int(matched.sum()), cell.match_minimum
    enough = num_matched >= minimum
    note = f"only {num_matched} label-matched test networks, {minimum} needed"
    on_matched = _metrics(truth[matched], prediction[matched], cell.num_bootstrap if enough else 0)
    first = predictions.iloc[0]
    return {
        "n_train": int(first["num_train"]),
        "n_test": truth.size,
        "num_dropped": int(first["num_dropped"]),
        "seconds": float(first["seconds"]),
        **_metrics(truth, prediction, cell.num_bootstrap),
        "n_matched": num_matched,
        **{MATCHED + name: value for name, value in on_matched.items()},
        "note": "" if enough else note,
    }


def _metrics(
    truth: Float[np.ndarray, "n"], prediction: Float[np.ndarray, "n"], num_bootstrap: int
) -> dict[str, float]:
    """Each metric and its interval; NaN without bootstrap samples or with one network."""
    estimates = dict.fromkeys(METRICS, NOT_MEASURED)
    if num_bootstrap and truth.size > 1:
        estimates = bootstrap(truth, prediction, num_bootstrap=num_bootstrap)
    values = {}
    for metric, estimate in estimates.items():
        values |= columns_of(metric, estimate)
    return values
