"""Conservation laws of training: their quantities, residuals, drift and number."""

from zoo.conservation.count import count_independent, count_laws
from zoo.conservation.drift import norm_bounds, predicted_drift, split_drift
from zoo.conservation.find import find_laws
from zoo.conservation.laws import Law, laws
from zoo.conservation.quantities import measure, quantities, residuals
from zoo.conservation.tracker import Tracker

__all__ = [
    "Law",
    "Tracker",
    "count_independent",
    "count_laws",
    "find_laws",
    "laws",
    "measure",
    "norm_bounds",
    "predicted_drift",
    "quantities",
    "residuals",
    "split_drift",
]
