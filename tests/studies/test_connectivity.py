"""Segments and barriers against plain loops over modules, alignment of disguised networks, and the
study on a small zoo.
"""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy import stats

from data_gen.config import Job
from data_gen.generation import generate
from studies.common import evaluation, runner
from studies.common.alignments import ALIGNMENTS, Matching, moved_share
from studies.common.evaluation import Part, evaluate, reset_statistics
from studies.common.intervals import mean_interval
from studies.common.segments import above_chord, evaluate_segment, midpoint
from studies.connectivity import study as connectivity
from studies.connectivity.report import pair_barriers
from studies.connectivity.study import STUDY, Connectivity, cells_of, pairs_of
from tests.reference.zoo_modules import MODULES
from zoo.architectures import build_architecture
from zoo.params import stack
from zoo.store.zoo import load
from zoo.symmetry.action import act, sample

run, format_study, write_report = (
    functools.partial(function, STUDY)
    for function in (runner.run, runner.format_study, runner.write_report)
)
CASES = {
    "mlp": ({"hidden": [9, 7], "activation": "gelu", "norm": "layer"}, (1, 4, 4)),
    "cnn": ({"channels": [4, 5]}, (1, 6, 6)),
    "resnet": ({"channels": [3, 4, 5]}, (1, 8, 8)),
}
POINTS = np.linspace(0, 1, 5)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def make(name, count, seed=0):
    """A network and `count` draws of its parameters, in float64.

    Running statistics are drawn too.
    """
    options, shape = CASES[name]
    network = build_architecture(name, options, shape, 3).to("cpu", torch.float64)
    draws = [network.init(generator(seed + i)) for i in range(count)]
    params = {n: t.double() for n, t in stack(draws).items()}
    for statistic in network.statistics:
        params[statistic] += 0.3 * torch.rand(
            params[statistic].shape, generator=generator(seed), dtype=torch.float64
        )
    return network, params


def images(name, count=40, seed=1):
    x = torch.randn(count, *CASES[name][1], generator=generator(seed), dtype=torch.float64)
    return Part(x, torch.arange(count) % 3)


def module(name, params):
    options, shape = CASES[name]
    twin = MODULES[name](shape, 3, **options).double()
    with torch.no_grad():
        for key, tensor in (*twin.named_parameters(), *twin.named_buffers()):
            tensor.copy_(params[key])
    return twin.eval()


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


def test_barriers_of_pairs_by_hand():
    points = np.linspace(0, 1, 5)
    rows = []
    for pair, height in ((0, 1.0), (1, 3.0)):
        bump = height * np.array([0, 0.5, 1, 2, 0])
        metrics = {"train_loss": 1 + points + bump, "test_loss": 2 - points + 2 * bump}
        metrics |= {
            "train_accuracy": 0.9 - 0.1 * bump,
            "test_accuracy": 0.8 - 0.2 * points - 0.05 * bump,
        }
        told = {"distance_before": 2.0, "distance": 1.0, "moved": 0.5, "misordered_share": 0.5}
        named = {"population": "p", "alignment": "weights", "repaired": False, "pair": pair}
        rows.append(pd.DataFrame({**named, **told, "point": points, **metrics}))
    shuffled = pd.concat(rows).sample(frac=1, random_state=0)
    barriers = pair_barriers(shuffled).sort_values("pair")
    np.testing.assert_allclose(barriers["train_loss_barrier"], [1, 3])
    np.testing.assert_allclose(barriers["test_loss_highest"], [4, 12])
    np.testing.assert_allclose(barriers["test_accuracy_barrier"], [0.05, 0.15])
    np.testing.assert_allclose(barriers["train_accuracy_highest"], [0.2, 0.6])
    np.testing.assert_allclose(barriers["end_loss"], [1.5, 1.5])


@pytest.fixture(scope="module")
def small_zoo(tmp_path_factory):
    mlp = {"name": "mlp", "hidden": [8, 6]}
    job = Job.model_validate(
        {
            "task": {"name": "digits", "train_size": 60, "test_size": 40},
            "populations": {
                "standard": {"architecture": mlp},
                "w_asymmetric": {"architecture": mlp, "asymmetry": {"kind": "w", "kappa": 2.0}},
                "resnet": {"architecture": {"name": "resnet", "channels": [2, 3, 3]}},
            },
            "hyperparameters": {"steps": 15, "lr": 0.2, "batch_size": 8},
            "count": 5,
            "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        }
    )
    return generate(job, tmp_path_factory.mktemp("zoos") / "small", compile=False, quiet=True)


@pytest.fixture(scope="module")
def study(small_zoo, tmp_path_factory):
    config = Connectivity(zoo=small_zoo, points=5, match_images=50, repair=True)
    out = tmp_path_factory.mktemp("studies") / "connectivity"
    return config, run(config, out, quiet=True), out


def test_the_ends_are_the_networks_of_the_zoo_as_it_measured_them(study):
    config, rows, _ = study
    for name, population in load(config.zoo).items():
        table = pd.concat([population.table(split) for split in population.splits]).set_index(
            "network_id"
        )
        here = rows.loc[(rows["population"] == name) & ~rows["repaired"]]
        for point, column in ((0.0, "first_id"), (1.0, "second_id")):
            ends = here.loc[here["point"] == point]
            for metric in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
                expected = table.loc[ends[column], metric].to_numpy()
                np.testing.assert_allclose(
                    ends[metric], expected, rtol=0, atol=1e-5 if "loss" in metric else 0
                )
        assert here[["pair", "first_id", "second_id"]].drop_duplicates().to_numpy().tolist() == [
            [0, 0, 1],
            [1, 2, 3],
        ]


def test_every_population_has_the_ways_that_its_space_and_norms_allow(study):
    _, rows, out = study
    ways = {
        name: set(zip(here["alignment"], here["repaired"], strict=True))
        for name, here in rows.groupby("population")
    }
    three = {"none", "weights", "activations"}
    assert ways == {
        "standard": {(way, False) for way in three},
        "w_asymmetric": {("none", False)},
        "resnet": {(way, repaired) for way in three for repaired in (False, True)},
    }
    assert len(rows) == (3 + 1 + 6) * 2 * 5
    pd.testing.assert_frame_equal(rows, pd.read_parquet(out / "rows.parquet"))


def test_weight_matching_shortens_the_way_and_no_other_does_without_need(study):
    rows = study[1]
    here = rows.loc[rows["alignment"] == "weights"]
    assert (here["distance"] < here["distance_before"]).all()
    assert (here["moved"] > 0).all()
    np.testing.assert_array_equal(here["moved"], here["misordered_share"])
    plain = rows.loc[rows["alignment"] == "none"]
    np.testing.assert_array_equal(plain["distance"], plain["distance_before"])
    assert (plain["moved"] == 0).all()
    assert (plain.loc[plain["population"] == "w_asymmetric", "misordered_share"] < 0.5).all()


@pytest.mark.parametrize("alignment", ["weights", "activations"])
def test_the_second_network_of_a_pair_is_brought_to_the_first(study, alignment):
    """Three neurons of each layer change places in a ring: the inverse of a ring is another one."""
    config, population = study[0], load(study[0].zoo)["standard"]
    first = {name: tensor[0] for name, tensor in evaluation.all_networks(population)[1].items()}
    ring = {
        "h1": torch.tensor([0, 3, 2, 5, 4, 1, 6, 7]),
        "h2": torch.tensor([1, 2, 0, 3, 4, 5]),
    }
    element = replace(sample(population.space, generator(0)), permutations=ring, scales={})
    second = act(population.space, element, first)
    cell = next(cell for cell in cells_of(config, population) if cell.alignment == alignment)
    parts = evaluation.first_images(population, 60, 20)
    matching = Matching(population.architecture, parts["train"], num_restarts=3, seed=0)
    row = connectivity.measure_pair(cell, population, first, second, parts, matching)
    assert row["distance_before"] > 0.01
    assert row["distance"] == 0
    assert row["moved"] == row["misordered_share"] == 6 / 14
    assert np.ptp(row["train_loss"]) < 1e-6


def test_a_second_run_measures_nothing(study, monkeypatch):
    config, rows, out = study

    @functools.wraps(connectivity.measure)
    def refuse(cell):
        pytest.fail(f"measured again: {cell}")

    monkeypatch.setattr(connectivity, "measure", refuse)
    pd.testing.assert_frame_equal(run(config, out, quiet=True), rows)


def test_cells_depend_on_what_matters(study):
    config, _, _ = study
    population = load(config.zoo)["standard"]
    cell = cells_of(config, population)[0]
    others = [
        cells_of(config.model_copy(update={name: value}), population)[0]
        for name, value in (("points", 7), ("num_test", 9))
    ]
    others.append(cells_of(config, load(config.zoo)["w_asymmetric"])[0])
    assert len({cell, *others}) == 4


def test_the_table_and_the_report(study):
    config, rows, out = study
    text = format_study(config, rows, out)
    assert all(
        word in text
        for word in ("w_asymmetric", "activations, statistics reset", "test loss barrier")
    )
    html = write_report(config, rows, out).read_text(encoding="utf-8")
    assert html.count("<figure>") == 4


def test_pairs_are_whole():
    assert pairs_of(np.array([0, 1, 3, 4, 5, 8, 9]), None) == [(0, 1), (3, 4), (5, 6)]
    assert pairs_of(np.array([0, 1, 4, 5]), 1) == [(0, 1)]
    with pytest.raises(
        ValueError, match="expected at least 3 pairs of networks that did not diverge, found 2"
    ):
        pairs_of(np.array([0, 1, 2, 3]), 3)
    with pytest.raises(ValueError, match="expected at least 1 pairs"):
        pairs_of(np.array([1, 2]), None)


def test_networks_that_diverged_are_left_out(small_zoo, monkeypatch):
    population = load(small_zoo)["standard"]
    whole = evaluation.all_networks(population)
    original = type(population).table
    monkeypatch.setattr(
        type(population),
        "table",
        lambda self, s: original(self, s).assign(diverged=lambda t: t.network_id == 1),
    )
    table, params = evaluation.all_networks(population)
    assert table["network_id"].tolist() == [0, 2, 3, 4]
    assert all(torch.equal(params[name], whole[1][name][[0, 2, 3, 4]]) for name in params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"points": 24},
            "expected an odd number, so that the middle is one of the points, found 24",
        ),
        (
            {"alignments": ["rebasin"]},
            r"expected alignments among \['none', 'weights', 'activations'\], found \['rebasin'\]",
        ),
        ({"alignments": []}, "expected alignments among"),
    ],
)
def test_bad_configs_say_what_is_wrong(changes, message):
    with pytest.raises(ValidationError, match=message):
        Connectivity.model_validate({"zoo": "runs/zoo"} | changes)


def test_unknown_populations_are_refused(small_zoo, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"no populations \['v'\] in .*; "
        r"populations are \['standard', 'w_asymmetric', 'resnet'",
    ):
        run(Connectivity(zoo=small_zoo, populations=("v",)), tmp_path, quiet=True)
