"""Segments and barriers against plain loops over modules, and alignment of disguised networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from studies.common import evaluation
from studies.common.alignments import ALIGNMENTS, Matching, moved_share
from studies.common.evaluation import Part, evaluate, reset_statistics
from studies.common.intervals import mean_interval
from studies.common.segments import above_chord, evaluate_segment, midpoint
from tests.studies.segment_networks import CASES, POINTS, generator, images, make, module
from zoo.symmetry.action import act, sample


@pytest.mark.parametrize("name", CASES)
def test_a_segment_equals_a_plain_loop_over_modules(name):
    network, params = make(name, 4)
    start, end = ({n: t[rows] for n, t in params.items()} for rows in ([0, 1], [2, 3]))
    part = images(name)
    values = evaluate_segment(network, start, end, POINTS, {"part": part})["part"]
    for i in range(2):
        for k, t in enumerate(POINTS):
            twin = module(name, {n: (1 - t) * start[n][i] + t * end[n][i] for n in params})
            with torch.no_grad():
                logits = twin(part.x)
            assert values[0][i, k] == pytest.approx(
                float(F.cross_entropy(logits, part.y)), abs=1e-10
            )
            assert values[1][i, k] == float((logits.argmax(1) == part.y).double().mean())


def test_statistics_are_reset_as_by_a_cumulative_average_of_batch_norm(monkeypatch):
    monkeypatch.setattr(evaluation, "_IMAGES_AT_ONCE", 16)
    network, params = make("resnet", 3)
    x = images("resnet", 40).x  # two full batches; the 8 images that remain are left out
    reset = reset_statistics(network, params, x)
    for i in range(3):
        twin = module("resnet", {n: t[i] for n, t in params.items()}).train()
        for layer in twin.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
                layer.num_batches_tracked = torch.tensor(0)
                layer.reset_running_stats()
        with torch.no_grad():
            for batch in x[:32].split(16):
                twin(batch)
        for n, expected in twin.state_dict().items():
            if not n.endswith("num_batches_tracked"):
                torch.testing.assert_close(reset[n][i], expected, rtol=0, atol=1e-12)
    changed = [n for n in params if not torch.equal(reset[n], params[n])]
    assert sorted(changed) == sorted(network.statistics)


def test_a_repaired_segment_has_the_statistics_of_its_own_points():
    network, params = make("resnet", 2)
    part = images("resnet")
    start, end = ({n: t[i : i + 1] for n, t in params.items()} for i in range(2))
    values = evaluate_segment(network, start, end, POINTS, {"part": part}, repair=part)["part"]
    middle = reset_statistics(network, {n: (start[n] + end[n]) / 2 for n in start}, part.x)
    assert values[0][0, 2] == pytest.approx(evaluate(network, middle, part)[0][0], abs=1e-12)
    assert (
        abs(
            values[0][0, 2]
            - evaluate_segment(network, start, end, POINTS, {"part": part})["part"][0][0, 2]
        )
        > 1e-3
    )


def test_networks_without_running_statistics_stay_as_they_are():
    network, params = make("mlp", 2)
    reset = reset_statistics(network, params, images("mlp").x)
    assert all(torch.equal(reset[n], params[n]) for n in params)


@pytest.mark.parametrize("name", CASES)
def test_small_portions_change_nothing(name, monkeypatch):
    network, params = make(name, 5)
    part = images(name)
    whole = evaluate(network, params, part), reset_statistics(network, params, part.x[:30])
    monkeypatch.setattr(
        evaluation, "_PARAMS_AT_ONCE", 2 * sum(t[0].numel() for t in params.values())
    )
    monkeypatch.setattr(evaluation, "_IMAGES_AT_ONCE", 30)
    assert [
        len(next(iter(portion.values())))
        for portion in evaluation.in_portions(network, params, part.x)
    ] == [2, 2, 1]
    cut = evaluate(network, params, part), reset_statistics(network, params, part.x[:30])
    np.testing.assert_allclose(cut[0][0], whole[0][0], atol=1e-12)
    np.testing.assert_array_equal(cut[0][1], whole[0][1])
    assert all(torch.allclose(cut[1][n], whole[1][n], rtol=0, atol=1e-12) for n in params)


def test_activations_bound_the_portions_too(monkeypatch):
    network, params = make("mlp", 5)
    part = images("mlp")
    monkeypatch.setattr(evaluation, "_ACTIVATIONS_AT_ONCE", 3 * (16 + 9 + 7) * len(part.y))
    assert [
        len(next(iter(portion.values())))
        for portion in evaluation.in_portions(network, params, part.x)
    ] == [3, 2]


@pytest.mark.parametrize("alignment", ["weights", "activations"])
@pytest.mark.parametrize("name", CASES)
def test_a_network_and_its_disguise_have_a_barrier_that_alignment_takes_away(name, alignment):
    network, params = make(name, 1, seed=5)
    a = {n: t[0] for n, t in params.items()}
    space, part = network.space, images(name)
    with torch.no_grad():
        part = Part(
            part.x, network.apply(a, part.x).argmax(1)
        )  # labels that the network is good at
    element = replace(sample(space, generator(3)), scales={})
    b = act(space, element, a)
    matching = Matching(network, part, num_restarts=3, seed=0)
    barriers = {}
    for way in ("none", alignment):
        aligned_by = ALIGNMENTS[way](space, b, a, matching)
        ends = ({n: t[None] for n, t in p.items()} for p in (a, act(space, aligned_by, b)))
        losses = evaluate_segment(network, *ends, POINTS, {"part": part})["part"][0]
        barriers[way] = above_chord(losses, POINTS)[0, midpoint(POINTS)]
    assert barriers["none"] > 1e-4
    assert abs(barriers[alignment]) < 1e-10


def test_what_is_above_the_chord():
    points = np.linspace(0, 1, 9)
    values = np.stack([2 + 3 * points, 1 + 4 * points * (1 - points)])
    np.testing.assert_allclose(
        above_chord(values, points), [0 * points, 4 * points * (1 - points)], atol=1e-15
    )
    assert midpoint(points) == 4
    with pytest.raises(ValueError, match=r"expected the middle 0\.5 among the points"):
        midpoint(np.linspace(0, 1, 4))


def test_moved_neurons_are_counted():
    space = make("mlp", 1)[0].space  # 9 and 7 neurons
    order = {
        "h1": torch.tensor([1, 0, 2, 3, 4, 5, 6, 7, 8]),
        "h2": torch.tensor([1, 2, 0, 3, 4, 5, 6]),
    }
    element = replace(sample(space, generator(0)), permutations=order)
    assert moved_share(space, element) == 5 / 16


def test_intervals_are_students():
    values = np.random.default_rng(0).normal(3, 2, 6)
    mean, low, high, n = mean_interval(values)
    expected = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    np.testing.assert_allclose([mean, low, high], [values.mean(), *expected], rtol=1e-12)
    assert n == 6
    assert str(mean_interval(np.array([1.5]))) == "1.500"


def test_intervals_cover_the_truth_as_often_as_they_say():
    """95% of 4,000 intervals of 5 values; four standard errors of that share are 1.4%."""
    draws = np.random.default_rng(1).normal(1, 1, (4000, 5))
    inside = [low <= 1 <= high for _, low, high, _ in map(mean_interval, draws)]
    assert abs(np.mean(inside) - 0.95) < 0.014
