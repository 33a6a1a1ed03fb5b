"""The study of mode connectivity on a small zoo."""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from data_gen.config import Job
from data_gen.generation import generate
from studies.common import evaluation, runner
from studies.common.alignments import Matching
from studies.connectivity import study as connectivity
from studies.connectivity.report import pair_barriers
from studies.connectivity.study import STUDY, Connectivity, cells_of, pairs_of
from tests.studies.segment_networks import generator
from zoo.store.zoo import load
from zoo.symmetry.action import act, sample

run, format_study, write_report = (
    functools.partial(function, STUDY)
    for function in (runner.run, runner.format_study, runner.write_report)
)


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
