"""Label matching.

Equal histograms, no network twice, a choice that depends on nothing but the labels and the seed.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.learnability.matching import bin_edges, histogram, match_labels

values = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=60).map(
    np.array
)
populations = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), values, min_size=1, max_size=4
)


@given(populations, st.integers(1, 30), st.integers(0, 5))
def test_histograms_agree_and_are_as_large_as_they_can_be(labels, num_bins, seed):
    chosen = match_labels(labels, num_bins=num_bins, seed=seed)
    edges = bin_edges(labels, num_bins)
    assert len(edges) - 1 <= num_bins
    histograms = {name: histogram(labels[name][index], edges) for name, index in chosen.items()}
    expected = np.min(
        [
            np.histogram(values, edges)[0] if edges[0] < edges[-1] else [values.size]
            for values in labels.values()
        ],
        0,
    )
    for name, index in chosen.items():
        assert len(set(index.tolist())) == len(index)
        np.testing.assert_array_equal(histograms[name], expected)


@given(populations, st.integers(1, 30))
def test_the_order_of_the_populations_does_not_matter(labels, num_bins):
    forward = match_labels(labels, num_bins=num_bins, seed=3)
    backward = match_labels(dict(reversed(labels.items())), num_bins=num_bins, seed=3)
    for name in labels:
        np.testing.assert_array_equal(forward[name], backward[name])


def test_equal_populations_keep_all_their_networks():
    labels = np.random.default_rng(0).uniform(size=50)
    for index in match_labels({"a": labels, "b": labels[::-1]}, num_bins=16, seed=0).values():
        np.testing.assert_array_equal(index, np.arange(50))


def test_populations_without_common_labels_share_no_network():
    chosen = match_labels(
        {"a": np.linspace(0, 0.3, 40), "b": np.linspace(0.7, 1, 40)}, num_bins=16, seed=0
    )
    assert [index.size for index in chosen.values()] == [0, 0]


def test_another_seed_chooses_other_networks():
    labels = {
        "a": np.random.default_rng(0).uniform(size=200),
        "b": np.random.default_rng(1).uniform(size=60),
    }
    first, second = (match_labels(labels, num_bins=8, seed=seed)["a"] for seed in (0, 1))
    assert first.tolist() != second.tolist()


def test_outliers_do_not_swallow_the_bins():
    labels = np.append(np.random.default_rng(0).uniform(size=99), 1e9)
    assert (histogram(labels, bin_edges({"a": labels}, 16)) > 0).sum() >= 8


def test_no_labels_are_refused():
    with pytest.raises(ValueError, match="at least one label"):
        match_labels({"a": np.empty(0)}, num_bins=4, seed=0)
