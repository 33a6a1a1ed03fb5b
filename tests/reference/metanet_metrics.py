"""Slow, obvious metrics: pairs one by one, resamples one by one."""

import math

import numpy as np
from scipy.stats import rankdata


def kendall_tau(y, p):
    concordant = discordant = tied_y = tied_p = 0
    pairs = [(i, j) for i in range(len(y)) for j in range(i)]
    for i, j in pairs:
        product = (y[i] - y[j]) * (p[i] - p[j])
        concordant += product > 0
        discordant += product < 0
        tied_y += y[i] == y[j]
        tied_p += p[i] == p[j]
    scale = math.sqrt((len(pairs) - tied_y) * (len(pairs) - tied_p))
    return (concordant - discordant) / scale if scale else 0.0


def spearman(y, p):
    a, b = rankdata(y), rankdata(p)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0


def r2(y, p):
    total = sum((a - np.mean(y)) ** 2 for a in y)
    return (
        1 - sum((a - b) ** 2 for a, b in zip(y, p, strict=True)) / total
        if total > 1e-15
        else math.nan
    )


def mae(y, p):
    return sum(abs(a - b) for a, b in zip(y, p, strict=True)) / len(y)


REFERENCE = {"r2": r2, "kendall_tau": kendall_tau, "spearman": spearman, "mae": mae}


def bootstrap(y, p, num_bootstrap, seed, level):
    counts = np.random.default_rng(seed).multinomial(
        len(y), np.full(len(y), 1 / len(y)), size=num_bootstrap
    )
    intervals = {}
    for name, metric in REFERENCE.items():
        values = [metric(np.repeat(y, c), np.repeat(p, c)) for c in counts]
        tail = 100 * (1 - level) / 2
        intervals[name] = np.nanpercentile(values, [tail, 100 - tail])
    return intervals
