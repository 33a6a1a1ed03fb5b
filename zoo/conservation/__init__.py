"""Conservation laws of training: their quantities, residuals, drift and number."""

from zoo.conservation.count import count_independent, count_laws
from zoo.conservation.drift import norm_bounds, predicted_drift, split_drift
from zoo.conservation.find import find_laws
from zoo.conservation.laws import Law, declared_laws
from zoo.conservation.quantities import conserved_quantities, measure, residuals
from zoo.conservation.tracker import Tracker

__all__ = [
    "Law",
    "Tracker",
    "conserved_quantities",
    "count_independent",
    "count_laws",
    "declared_laws",
    "find_laws",
    "measure",
    "norm_bounds",
    "predicted_drift",
    "residuals",
    "split_drift",
]
