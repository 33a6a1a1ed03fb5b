"""The study of conserved quantities.

Its rows are those of plain training, its slopes and half times those of closed forms.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from data_gen.config import load_job
from data_gen.generation import generate
from data_gen.shard import ShardWorker
from studies import cli
from studies.common import runner
from studies.conservation import prediction, trajectories
from studies.conservation.config import Conservation
from studies.conservation.prediction import (
    PredictionCell,
    first_crossings,
    shown,
    table_of,
)
from studies.conservation.study import STUDY
from studies.conservation.tables import fit_slopes, kind_of, network_means, path_cells, paths_of
from studies.conservation.trajectories import TERMS, TrainingCell, job_of
from zoo.config import ConfigError, read_config
from zoo.store.zoo import load

STEPS = 'hyperparameters.steps={"int_range": [60, 70]}'
SMALL = [
    "count=32",
    "task.train_size=120",
    STEPS,
    "hyperparameters.lr=0.2",
    "checkpoints=3",
    "shard_size=16",
]
DESCENTS = {
    "sgd": {"lrs": [0.1, 0.05, 0.025]},
    "momentum": {"momentum": 0.9, "lrs": [0.01]},
    "decay": {"weight_decay": 0.1, "lrs": [0.1]},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "lrs": [0.002]},
}


def job_with(*populations, changes=()):
    job = load_job("conservation-digits", [*SMALL, *changes])
    return job.model_copy(update={"populations": {n: job.populations[n] for n in populations}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    job = job_with("standard", "w_asymmetric", "sigma_asymmetric")
    return generate(job, tmp_path_factory.mktemp("zoo") / "zoo", quiet=True, compile=False)


@pytest.fixture(scope="module")
def study(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    config = config_of(folder)
    return config, runner.run(STUDY, config, out, quiet=True), out


def config_of(folder):
    common = {
        "zoo": folder,
        "descents": DESCENTS,
        "steps": 16,
        "records": 2,
        "networks": 2,
        "num_bootstrap": 50,
    }
    told = {
        "targets": ["half_time"],
        "populations": ["standard", "w_asymmetric", "sigma_asymmetric"],
    }
    return Conservation.model_validate(common | told)


def test_laws_hold_where_their_symmetry_is_and_nowhere_else(study):
    _, rows, _ = study
    worst = paths_of(rows).groupby(["population", "kind"])["residual_max"].max()
    assert worst["standard", "balance"] < 1e-12
    for population in ("standard", "sigma_asymmetric"):
        assert worst[population, "shift"] < 1e-12
    for population in ("w_asymmetric", "sigma_asymmetric"):
        assert worst[population, "balance"] > 1e-3


def test_the_terms_of_the_drift_add_up_and_say_what_moved(study):
    _, rows, _ = study
    paths = paths_of(rows)
    assert float(paths["gap"].max()) < 1e-11
    ends = paths.loc[
        (paths["population"] == "standard") & (paths["kind"] == "balance") & (paths["step"] == 16)
    ]
    largest = ends.groupby("descent")[list(TERMS)].mean().idxmax(axis=1)
    assert largest.to_dict() == {
        "sgd": "discretization",
        "momentum": "optimizer",
        "decay": "decay",
        "adamw": "optimizer",
    }
    broken = paths.loc[
        (paths["population"] == "w_asymmetric") & (paths["descent"] == "sgd") & (paths["step"] > 0)
    ]
    assert (broken["broken"] > broken["discretization"]).all()


def test_a_step_of_descent_changes_a_balance_by_the_square_of_its_size(study):
    cells = path_cells(study[1]).set_index(["population", "descent", "law"])
    assert float(cells.loc[("standard", "sgd", "balance"), "slope"].split()[0]) == pytest.approx(
        2, abs=0.2
    )
    assert float(
        cells.loc[("w_asymmetric", "sgd", "balance"), "slope"].split()[0]
    ) == pytest.approx(1, abs=0.4)
    assert cells.loc[("standard", "sgd", "shift"), "slope"] == "-"


@pytest.mark.parametrize("descent", ["momentum", "adamw"])
def test_runs_are_the_training_of_zoos(folder, study, descent):
    config, rows, _ = study
    told = json.dumps(load(folder).manifest.config, sort_keys=True)
    options = {"momentum": 0.0, "weight_decay": 0.0, "optimizer": "sgd"} | DESCENTS[descent]
    rates = options["lrs"][0], options["momentum"], options["weight_decay"]
    run = TrainingCell(
        told, "standard", descent, options["optimizer"], *rates, 16, config.batch_size, 2, 2
    )
    worker = ShardWorker(
        job_of(run), Path(), torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )
    _, _, trajectory = worker.train("standard", torch.arange(2), lambda _: None)
    paths = paths_of(rows).set_index(["population", "descent", "step", "law", "network"])
    for law in ("h1.balance", "h2.balance"):
        quantity = trajectory[f"quantity.{law}"]
        for network in range(2):
            row = paths.loc[("standard", descent, 16, law, network)]
            assert row["drift"] == pytest.approx(
                float((quantity[network, -1] - quantity[network, 0]).abs().mean()), rel=1e-9
            )
            assert row["size"] == pytest.approx(float(quantity[network, 0].abs().mean()), rel=1e-9)


def test_a_diverging_run_is_refused(folder):
    told = json.dumps(load(folder).manifest.config, sort_keys=True)
    run = TrainingCell(told, "standard", "sgd", "sgd", 1e30, 0.0, 0.0, 5, 8, 1, 2)
    with pytest.raises(ValueError, match=r"diverged by step .*; choose a smaller lr"):
        trajectories.measure(run)


def test_slopes_are_those_of_powers():
    lrs = np.array([0.2, 0.1, 0.05])
    assert fit_slopes(lrs, np.stack([3 * lrs**2, 5 * lrs**0.5])) == pytest.approx([2, 0.5])
    rows = pd.DataFrame({"network": [0, 0, 1]})
    assert network_means(rows, np.array([1.0, 3.0, 5.0])).tolist() == [2, 5]
    assert kind_of("layers.2.weight.shift") == "shift"


def test_half_times_are_crossings_of_lines():
    steps = np.array([[0.0, 10, 20, 30]] * 4)
    losses = np.array([[4.0, 3, 1, 0.5], [4, 2, 1, 1], [4, 3.5, 3, 2.5], [4, 1, 3, np.nan]])
    places = first_crossings(steps, losses)
    assert places[:2] == pytest.approx([15, 10])
    assert np.isnan(places[2:]).all()


def test_what_a_bridge_shows(folder):
    population = load(folder)["standard"]
    _, quantities, _ = population.conservation("test")
    cell = PredictionCell(
        folder,
        population.fingerprint,
        "standard",
        "half_time",
        ("conserved",),
        50,
        0,
        50,
        Path("unused"),
    )
    predictor = shown(population, "conserved", {"test": table_of(cell, population, "test")})
    assert set(predictor.space.tensors) == set(predictor.params("test")) == set(quantities)
    assert torch.equal(predictor.params("test")["h1.balance"], quantities["h1.balance"][:, 0])
    initial = shown(population, "initial", {})
    assert torch.equal(
        initial.params("test")["layers.0.weight"],
        population.trajectory("test")[1]["layers.0.weight"][:, 0],
    )
    table = predictor.table("test")
    assert (table["diverged"] == ~np.isfinite(table["half_time"])).all()
    reached = table["half_time"].dropna()
    assert ((reached > 0) & (reached <= 70)).all()


def test_the_study_measures_once_and_reports(study, monkeypatch):
    config, rows, out = study

    def fail(*_):
        raise RuntimeError("measured again")

    monkeypatch.setattr(trajectories, "ShardWorker", fail)
    monkeypatch.setattr(prediction, "Metanet", fail)
    pd.testing.assert_frame_equal(runner.run(STUDY, config, out, quiet=True), rows)
    text = runner.format_study(STUDY, config, rows, out)
    assert "w_asymmetric" in text and "half_time" in text
    page = runner.write_report(STUDY, config, rows, out).read_text(encoding="utf-8")
    assert page.count("<figure>") == 3
    assert read_config(Conservation, out / "config.yaml") == config


def test_impossible_configs_are_refused(folder, tmp_path):
    path = Path(cli.__file__).parent / "recipes" / "conservation-small.yaml"
    assert read_config(Conservation, path).job == "conservation-digits"
    for change, message in (
        ("descents.adamw.optimizer=adam", "descents.adamw.optimizer: unknown optimizer 'adam'"),
        ("bridges=[future]", "unknown bridge 'future'"),
        ("descents={}", "descents"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_config(Conservation, path, [change])
    with pytest.raises(ValueError, match="unknown target 'fame' of population 'standard'"):
        runner.run(
            STUDY,
            config_of(folder).model_copy(update={"targets": ("fame",)}),
            tmp_path / "x",
            quiet=True,
        )
    without_laws = job_with("standard", changes=["laws=null", "count=4"])
    plain = generate(without_laws, tmp_path / "plain", quiet=True, compile=False)
    told = [
        "study",
        "conservation",
        "--zoo",
        str(plain),
        "--set",
        "steps=10",
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "0",
    ]
    result = CliRunner().invoke(
        cli.main, [*told, "--set", "networks=1", "--set", 'descents={"sgd": {"lrs": [0.1]}}']
    )
    assert result.exit_code == 1
    assert (
        "no conserved quantities; expected the zoo of a job with `checkpoints` and `laws`"
        in result.output
    )
