"""Metrics against scipy, scikit-learn and slow twins; intervals against plain resampling."""

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score

from metanet import metrics
from metanet.metrics import METRICS, Estimate, bootstrap, kendall_tau, mae, over_seeds, r2, spearman
from tests.reference import metanet_metrics as slow


def pair(seed, size=60, decimals=1, slope=1):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=size)
    return np.round(y, decimals), np.round(slope * y + rng.normal(size=size), decimals)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("slope", [1, -1])
def test_metrics_equal_the_libraries(seed, decimals, slope):
    y, p = pair(seed, decimals=decimals, slope=slope)
    assert np.sign(kendalltau(y, p).statistic) == slope
    assert kendall_tau(y, p) == pytest.approx(kendalltau(y, p).statistic, abs=1e-12)
    assert spearman(y, p) == pytest.approx(spearmanr(y, p).statistic, abs=1e-12)
    assert r2(y, p) == pytest.approx(r2_score(y, p), abs=1e-12)
    assert mae(y, p) == pytest.approx(mean_absolute_error(y, p), abs=1e-12)


def test_pairs_in_blocks_are_all_counted(monkeypatch):
    y, p = pair(0)
    monkeypatch.setattr(metrics, "PAIR_BLOCK", 7)
    assert kendall_tau(y, p) == pytest.approx(slow.kendall_tau(y, p), abs=1e-12)


@pytest.mark.parametrize("size", [2, 5, 30])
def test_intervals_equal_resampling_one_by_one(size):
    y, p = pair(3, size)
    fast, reference = (
        bootstrap(y, p, num_bootstrap=50, seed=4, level=0.9),
        slow.bootstrap(y, p, 50, 4, 0.9),
    )
    for name in METRICS:
        assert fast[name].value == pytest.approx(slow.REFERENCE[name](y, p), abs=1e-12)
        assert [fast[name].low, fast[name].high] == pytest.approx(list(reference[name]), abs=1e-9)


def test_interval_covers_about_as_often_as_it_says():
    """Intervals of 80% of the mean of 80 values, 100 times.

    Hits are binomial with deviation 4 if the level is exact, and 4 deviations are 16. An interval
    of 95%, or of 50%, would lie 15 and 30 hits away.
    """
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        y = rng.normal(size=80)
        estimate = bootstrap(y, np.zeros(80), num_bootstrap=200, seed=seed, level=0.8)["mae"]
        hits += estimate.low <= np.sqrt(2 / np.pi) <= estimate.high
    assert 64 < hits < 96


def test_resamples_follow_the_seed():
    y, p = pair(0)
    assert bootstrap(y, p, 20, seed=1) == bootstrap(y, p, 20, seed=1) != bootstrap(y, p, 20, seed=2)


def test_constants_hold_no_order():
    y, _ = pair(0)
    flat = np.full_like(y, 0.3)
    assert kendall_tau(y, flat) == spearman(y, flat) == kendall_tau(flat, y) == 0
    with pytest.warns(UserWarning, match=r"R\^2 is not defined, NaN: all 60 targets are 0.3"):
        assert np.isnan(r2(flat, y))
    assert r2(y, np.full_like(y, y.mean())) == pytest.approx(0)
    with pytest.warns(UserWarning, match=r"R\^2 is not defined, NaN: all"):
        estimates = bootstrap(flat, y, 10)
    assert np.isnan(estimates["r2"].low)
    assert estimates["mae"].low <= estimates["mae"].value <= estimates["mae"].high


def test_no_resamples_no_interval():
    estimate = bootstrap(*pair(0), num_bootstrap=0)["r2"]
    assert np.isfinite(estimate.value)
    assert np.isnan([estimate.low, estimate.high]).all()


@pytest.mark.parametrize("count", [-1, 2.5, True, "1000", 10**9, np.nan])
@pytest.mark.usefixtures("unchecked")
def test_numbers_of_resamples_that_memory_does_not_hold_are_refused(count):
    with pytest.raises(ValueError, match="num_bootstrap: expected"):
        bootstrap(*pair(0), num_bootstrap=count)


def test_spread_over_seeds():
    runs = [{"r2": Estimate(value, 0, 1)} for value in (0.1, 0.2, 0.6)]
    assert over_seeds(runs)["r2"] == pytest.approx(
        (0.3, np.std([0.1, 0.2, 0.6], ddof=1), 0.1, 0.6, 3)
    )
    assert over_seeds(runs[:1])["r2"] == (0.1, 0.0, 0.1, 0.1, 1)
    with pytest.raises(ValueError, match="at least one evaluation"):
        over_seeds([])


@pytest.mark.parametrize(
    ("y", "p", "says"),
    [
        ([], [], "length >= 1"),
        ([1.0, np.nan], [1.0, 2.0], "1 targets and 0 predictions"),
        ([1.0, 2.0], [np.inf, np.nan], "0 targets and 2 predictions"),
    ],
)
def test_bad_vectors_are_refused(y, p, says):
    with pytest.raises(ValueError, match=says):
        kendall_tau(np.array(y), np.array(p))
