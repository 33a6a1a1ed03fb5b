"""Label matching.

Test networks of several populations, subsampled so that their label histograms agree.

A population whose networks all have nearly the same accuracy is hard to score well on, one whose
accuracies spread widely is easy, whatever the weights look like. On matched networks a difference
between populations cannot come from the labels.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int


def bin_edges(
    labels: Mapping[str, Float[np.ndarray, "_"]], num_bins: int
) -> Float[np.ndarray, "_"]:
    """Bins shared by all populations.

    Half of the edges are equally spaced over the pooled labels, half are their quantiles: the first
    keep bins narrow in the tails, the second where the labels are dense.

    Args:
        labels: Finite labels of each population.
        num_bins: Largest number of bins.

    Returns:
        Increasing edges, at least two; the outer ones are the smallest and the largest label.

    Raises:
        ValueError: If there is no label at all.
    """
    pooled = np.concatenate(list(labels.values())) if labels else np.empty(0)
    if not pooled.size:
        raise ValueError("label matching: expected at least one label, got none")
    half = max(num_bins // 2, 1)
    spaced = np.linspace(pooled.min(), pooled.max(), half + 1)
    quantiles = np.quantile(pooled, np.linspace(0, 1, num_bins - half + 1))
    edges = np.unique(np.concatenate([spaced, quantiles]))
    return edges if edges.size > 1 else np.repeat(edges, 2)


def histogram(
    labels: Float[np.ndarray, "n"], edges: Float[np.ndarray, "_"]
) -> Int[np.ndarray, "_"]:
    """Number of labels in each bin.

    Args:
        labels: Labels inside the outer edges.
        edges: Increasing edges; a bin holds its lower edge, the last one also its upper edge.

    Returns:
        One count a bin.
    """
    return np.bincount(_bin_of(labels, edges), minlength=edges.size - 1)


def match_labels(
    labels: Mapping[str, Float[np.ndarray, "_"]], *, num_bins: int, seed: int
) -> dict[str, Int[np.ndarray, "_"]]:
    """Choose networks so that every population has the same number in each bin.

    In each bin every population keeps as many networks as the population with the fewest has there,
    drawn at random.

    Args:
        labels: Finite labels of each population's networks; the lengths may differ.
        num_bins: Largest number of bins.
        seed: Seed of the choice; it does not depend on the order of the populations.

    Returns:
        Increasing indices into each population's labels, equally many for all.
    """
    edges = bin_edges(labels, num_bins)
    counts = np.min([histogram(values, edges) for values in labels.values()], axis=0)
    chosen = {}
    for name in sorted(labels):
        generator = np.random.default_rng([seed, *name.encode()])
        bins = _bin_of(labels[name], edges)
        picks = [
            generator.permutation(np.flatnonzero(bins == i))[:count]
            for i, count in enumerate(counts)
        ]
        chosen[name] = np.sort(np.concatenate(picks))
    return chosen


def _bin_of(labels: Float[np.ndarray, "n"], edges: Float[np.ndarray, "_"]) -> Int[np.ndarray, "n"]:
    return np.clip(np.searchsorted(edges, labels, side="right") - 1, 0, edges.size - 2)
