"""Shapes of loss curves known by hand, their tables by brute force."""

import itertools

import numpy as np
import pytest
import torch

from data_gen.tasks.data import Part, Task
from data_gen.training.runs import DataView
from studies.common.intervals import bootstrap_mean
from studies.common.segments import between
from studies.interpolation.curves import measure_curves, segment_losses
from studies.interpolation.tables import (
    MEASURES,
    bin_shares,
    correlate,
    differences,
    share_interval,
    summarize,
)
from tests.studies.curves import bowl, made_up


def bowl_losses(start: float, end: float, num_points: int = 5) -> np.ndarray:
    images = Part(torch.zeros(3, 1, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    one = torch.ones(1, 1, dtype=torch.float64)
    ends = tuple({"w": torch.tensor([[value]], dtype=torch.float64)} for value in (start, end))
    view = DataView(None, images.y[None])
    size, smoothing = torch.tensor([2]), torch.zeros(1, dtype=torch.float64)
    return segment_losses(
        bowl(), Task(images, images, 2, one, one), view, ends, size, smoothing, num_points
    ).numpy()


def test_a_segment_through_the_middle_of_a_bowl():
    w = np.linspace(-1, 3, 5)
    losses = bowl_losses(-1.0, 3.0)
    np.testing.assert_allclose(losses[0], np.log1p(np.exp(-(w**2))), rtol=1e-10)
    shapes = measure_curves(losses)
    assert shapes["largest_rise"][0] == pytest.approx(np.log(2) - np.log1p(np.exp(-1)))
    # the peak at w = 0 is not convex; it and w = 1 are above the chord from 0.31 to 0
    assert {name: values[0] for name, values in shapes.items() if name != "largest_rise"} == {
        "monotonic": 0.0,
        "convex": pytest.approx(2 / 3),
        "below_chord": pytest.approx(1 / 3),
    }


def test_a_segment_down_one_side_is_monotonic_and_a_still_one_too():
    shapes = measure_curves(np.concatenate([bowl_losses(1.0, 3.0), bowl_losses(2.0, 2.0)]))
    assert shapes["monotonic"].tolist() == [1.0, 1.0]
    assert shapes["largest_rise"][0] < 0
    assert shapes["largest_rise"][1] == 0
    assert shapes["convex"].tolist() == shapes["below_chord"].tolist() == [1.0, 1.0]


PARABOLA = [(4 - t) ** 2 for t in range(5)]


@pytest.mark.parametrize(
    ("curve", "rise", "monotonic", "convex", "below"),
    [
        (PARABOLA, -1.0, 1, 1, 1),
        ([-value for value in PARABOLA], 7.0, 0, 0, 0),
        ([4.0, 3.0, 2.0, 1.0, 0.0], -1.0, 1, 1, 1),
        ([4.0, 3.0, 3.0, 1.0, 0.0], 0.0, 1, 2 / 3, 2 / 3),
        ([4.0, 1.0, 2.5, 1.0, 0.0], 1.5, 0, 2 / 3, 2 / 3),  # a bump
        (
            [4.0, 0.0, 3.0, 3.5, 4.0],
            3.0,
            0,
            2 / 3,
            1.0,
        ),  # below its chord, far above the line through the first two points
    ],
)
def test_curves_by_hand(curve, rise, monotonic, convex, below):
    shapes = measure_curves(np.array([curve], dtype=np.float64))
    wanted = {"largest_rise": rise, "monotonic": monotonic, "convex": convex, "below_chord": below}
    assert {name: float(values[0]) for name, values in shapes.items()} == pytest.approx(wanted)


def test_points_are_exact_at_both_ends():
    generator = torch.Generator().manual_seed(0)
    start, end = ({"w": torch.randn(3, 50, generator=generator)} for _ in range(2))
    points = between(start, end, np.linspace(0, 1, 4))["w"]
    assert torch.equal(points[:, 0], start["w"])
    assert torch.equal(points[:, -1], end["w"])


def test_diverged_networks_are_counted_and_left_out():
    rows = made_up()
    lines = summarize(rows, 100)
    assert lines[["population", "n", "diverged"]].to_numpy().tolist() == [
        ["standard", 29, 1],
        ["other", 26, 4],
    ]
    for line in lines.to_dict("records"):
        here = rows[(rows["population"] == line["population"]) & ~rows["diverged"]]
        for measure in MEASURES:
            assert line[measure] == pytest.approx(
                np.mean([value for value in here[measure] if np.isfinite(value)])
            )
            assert line[f"{measure}_low"] <= line[measure] <= line[f"{measure}_high"]
        assert (line["start"], line["end"]) == tuple(
            np.median(np.stack(here["losses"]), axis=0)[[0, -1]]
        )


def test_paired_differences_by_brute_force():
    rows = made_up()
    (line,) = differences(rows, "standard", 100).to_dict("records")
    by_id = {(row["population"], row["network_id"]): row for row in rows.to_dict("records")}
    pairs = [
        (by_id["other", i], by_id["standard", i])
        for i in range(30)
        if not by_id["other", i]["diverged"] and not by_id["standard", i]["diverged"]
    ]
    assert line["population"] == "other"
    assert line["n"] == len(pairs) == 25
    for measure in MEASURES:
        assert line[measure] == pytest.approx(
            sum(a[measure] - b[measure] for a, b in pairs) / len(pairs)
        )


def test_intervals_cover():
    random = np.random.default_rng(2)
    samples = [random.random(40) for _ in range(200)]
    means = [bootstrap_mean(values, 200) for values in samples]
    assert np.mean([interval.low <= 0.5 <= interval.high for interval in means]) > 0.88
    shares = [share_interval(values < 0.9) for values in samples]
    assert np.mean([interval.low <= 0.9 <= interval.high for interval in shares]) > 0.88
    sure = share_interval(np.ones(40))
    assert (sure.value, sure.high) == (1.0, 1.0)
    # the share for which 40 of 40 is as rare as 1.96 standard deviations: (1 - p) / sqrt(p (1 - p)
    # / 40) = 1.96
    assert (1 - sure.low) / (sure.low * (1 - sure.low) / 40) ** 0.5 == pytest.approx(1.959964)


def test_bins_by_brute_force():
    rows = made_up()
    for name, hyperparameter in itertools.product(("standard", "other"), ("lr", "optimizer")):
        shares = bin_shares(rows, hyperparameter, 3)
        here = shares[shares["population"] == name]
        usable = rows[(rows["population"] == name) & ~rows["diverged"]]
        assert here["n"].sum() == len(usable)
        assert (here["value"] * here["n"]).sum() == pytest.approx(usable["monotonic"].sum())
    lows = [
        float(label.split(" to ")[0])
        for label in bin_shares(rows, "lr", 3).drop_duplicates("bin")["label"]
    ]
    assert lows == sorted(lows)
    assert bin_shares(rows, "optimizer", 3)["label"].unique().tolist() == ["adamw", "sgd"]
    assert bin_shares(rows.assign(lr=0.5), "lr", 3)["label"].unique().tolist() == ["0.5"]


def test_correlations_are_of_ranks():
    rows = made_up()
    lines = correlate(rows, 100)
    assert lines["hyperparameter"].unique().tolist() == [
        "lr"
    ]  # the steps do not vary, the optimizer has no order
    here = rows[(rows["population"] == "other") & ~rows["diverged"]]
    ranks = here[["lr", "largest_rise"]].rank()
    assert lines["spearman"].iloc[1] == pytest.approx(
        np.corrcoef(ranks["lr"], ranks["largest_rise"])[0, 1]
    )
