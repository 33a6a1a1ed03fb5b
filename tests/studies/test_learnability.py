"""A learnability study: its grid, its cache, its errors."""

import dataclasses
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from studies.common.parallel import run_here, run_in_processes
from studies.learnability.fits import Cell, Place, cell_path, load_predictions
from studies.learnability.plan import match_test_networks, plan_tasks
from studies.learnability.study import Learnability, run
from tests.studies.zoos import write_zoo
from zoo.store.population import load

METRICS = ("r2", "kendall_tau", "spearman", "mae")


def config_for(zoo, **changes) -> Learnability:
    settings = {
        "metanets": ["mlp"],
        "num_train": [10, "all"],
        "seeds": [0, 1],
        "num_bootstrap": 20,
        "match_minimum": 2,
    }
    return Learnability.model_validate({"zoo": zoo, **settings, **changes})


def test_one_row_a_cell_with_every_metric_and_its_interval(tiny_zoo, tmp_path, counted_fit):
    rows = run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    keys = ["population", "metanet", "num_train", "seed"]
    assert len(rows) == 2 * 2 * 2 * 2 == len(rows[keys].drop_duplicates()) == len(counted_fit.cells)
    assert set(rows["metanet"]) == {"hparams", "mlp"}, "the floor is always there"
    assert sorted(set(rows["num_train"])) == [10, 40]
    for metric in (*METRICS, *(f"matched_{name}" for name in METRICS)):
        assert (rows[f"{metric}_low"] <= rows[metric] + 1e-12).all()
        assert (rows[metric] <= rows[f"{metric}_high"] + 1e-12).all()
    assert (rows["n_test"] == 24).all()
    assert (rows["n_matched"] == 24).all(), "the populations of this zoo have the same labels"
    pd.testing.assert_frame_equal(rows, pd.read_parquet(tmp_path / "rows.parquet"))


def test_a_second_run_fits_nothing_and_returns_the_same_rows(tiny_zoo, tmp_path, counted_fit):
    first = run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    counted_fit.cells.clear()
    second = run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    assert counted_fit.cells == []
    pd.testing.assert_frame_equal(first, second)


def test_a_larger_grid_fits_the_new_cells_only(tiny_zoo, tmp_path, counted_fit):
    run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    counted_fit.cells.clear()
    run(config_for(tiny_zoo, seeds=[0, 1, 2]), tmp_path, workers=1, quiet=True)
    assert len(counted_fit.cells) == 2 * 2 * 2
    assert {cell.seed for cell in counted_fit.cells} == {2}


def test_scoring_anew_needs_no_fit(tiny_zoo, tmp_path, counted_fit):
    first = run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    counted_fit.cells.clear()
    second = run(
        config_for(tiny_zoo, num_bootstrap=40, match_bins=4), tmp_path, workers=1, quiet=True
    )
    assert counted_fit.cells == []
    assert (first["r2_low"] != second["r2_low"]).any()


def test_a_run_that_stops_loses_the_cell_in_progress_only(
    tiny_zoo, tmp_path, counted_fit, monkeypatch
):
    def stop_at_fourth(cell: Cell, out: Path):
        if len(counted_fit.cells) == 3:
            raise KeyboardInterrupt
        return counted_fit(cell, out)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("studies.learnability.scores.fit", stop_at_fourth)
        run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    assert len(list((tmp_path / "cells").iterdir())) == 3
    run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    assert len(counted_fit.cells) == 16


def test_the_key_of_a_cell_changes_with_everything_but_the_place_of_the_zoo(tmp_path, monkeypatch):
    cell = Cell(
        tmp_path, "standard", "f" * 64, "mlp", "test_accuracy", 10, 0, "code", {"epochs": 3}
    )
    changes = {
        "fingerprint": "e" * 64,
        "metanet": "gbm",
        "target": "test_loss",
        "num_train": 11,
        "seed": 1,
        "code": "another version",
        "options": {"epochs": 4},
        "treatment": "augment",
        "shuffled": True,
        "elsewhere": (Place(tmp_path, "standard", "d" * 64, "other/standard"),),
    }
    keys = {
        cell.key,
        *(dataclasses.replace(cell, **{name: value}).key for name, value in changes.items()),
    }
    monkeypatch.setattr("studies.learnability.fits.FORMAT", 0)
    keys.add(cell.key)
    assert len(keys) == len(changes) + 2
    assert dataclasses.replace(cell, zoo=tmp_path / "elsewhere").key == cell.key


def test_populations_with_other_labels_are_matched(tmp_path, counted_fit):
    zoo = write_zoo(tmp_path / "zoo", counts=(20, 4, 200), shift=0.1)
    config = config_for(zoo, num_train=[10], match_minimum=30)
    rows = run(config, tmp_path / "out", workers=1, quiet=True)
    assert rows["n_matched"].nunique() == 1
    assert 30 <= rows["n_matched"].iloc[0] < 200
    assert (rows["note"] == "").all()
    chosen = match_test_networks(config, dict(load(zoo)), "test_accuracy")
    means = []
    for name, population in load(zoo).items():
        table = population.table("test").set_index("network_id")
        means.append(table.loc[list(chosen[name]), "test_accuracy"].mean())
    assert abs(means[0] - means[1]) < 0.02


def test_too_few_matched_networks_are_said_and_not_scored(tmp_path, counted_fit):
    zoo = write_zoo(tmp_path / "zoo", shift=0.4)
    rows = run(
        config_for(zoo, num_train=[10], match_minimum=30), tmp_path / "out", workers=1, quiet=True
    )
    assert rows[[f"matched_{name}" for name in METRICS]].isna().all(axis=None)
    assert rows["note"].str.contains("label-matched test networks, 30 needed").all()
    assert rows["r2"].notna().all()


def test_diverged_networks_are_left_out_of_the_test(tmp_path, counted_fit):
    zoo = write_zoo(tmp_path / "zoo", num_diverged=3)
    rows = run(config_for(zoo, num_train=[10]), tmp_path / "out", workers=1, quiet=True)
    assert (rows["n_test"] == 21).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"populations": ["standrad"]},
            r"no populations \['standrad'\] in .*; populations are \['standard', 'w_asymmetric'\]",
        ),
        ({"metanets": ["mpl"]}, r"unknown metanet: 'mpl'; known are .*'mlp'"),
        ({"options": {"mpl": {}}}, "unknown metanet: 'mpl'"),
        ({"options": {"mlp": {"wdith": 3}}}, "wdith"),
        (
            {"options": {"mlp": {"seed": 3}}},
            r"options of metanet 'mlp': \['seed'\] are set by the study",
        ),
        (
            {"targets": "acuracy"},
            r"'standard', split 'test': target column 'acuracy' does not exist; .*'test_accuracy'",
        ),
        ({"targets": "optimizer"}, "target column 'optimizer' is not numeric"),
        (
            {"num_train": [41]},
            r"num_train: 41 is more than the 40 training networks of population 'standard'.*'all'",
        ),
    ],
)
def test_a_study_that_cannot_be_done_is_refused_before_anything_is_fitted(
    tiny_zoo, tmp_path, counted_fit, changes, message
):
    with pytest.raises(ValueError, match=message):
        run(config_for(tiny_zoo, **changes), tmp_path, workers=1, quiet=True)
    assert counted_fit.cells == []


@pytest.mark.parametrize(
    "changes",
    [
        {"metanet": "mlp"},
        {"num_train": [0]},
        {"num_train": []},
        {"num_train": "most"},
        {"seeds": [-1]},
        {"metanets": []},
    ],
)
def test_bad_configs_are_refused(tiny_zoo, changes):
    with pytest.raises(ValidationError):
        config_for(tiny_zoo, **changes)


def test_single_values_stand_for_lists_and_all_is_not_counted_twice(tiny_zoo, tmp_path):
    config = config_for(tiny_zoo, num_train="all", seeds=0, targets="test_loss")
    assert (config.num_train, config.seeds, config.targets) == (("all",), (0,), ("test_loss",))
    tasks = plan_tasks(
        config_for(tiny_zoo, num_train=["all", 40], seeds=[0]), load(tiny_zoo), tmp_path
    )
    assert [task.cell.num_train for task in tasks] == [40] * 4


def test_a_damaged_cell_is_named(tiny_zoo, tmp_path, counted_fit):
    run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    path = cell_path(tmp_path, counted_fit.cells[0])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path.name}.*delete the file"):
        load_predictions(path)


def test_predictions_survive_the_file(tiny_zoo, tmp_path, counted_fit):
    run(config_for(tiny_zoo), tmp_path, workers=1, quiet=True)
    cell = counted_fit.cells[0]
    stored, made = load_predictions(cell_path(tmp_path, cell)), counted_fit(cell, tmp_path)
    assert list(stored) == list(made) == ["standard"]
    for name, value in vars(made["standard"]).items():
        np.testing.assert_array_equal(getattr(stored["standard"], name), value)


def test_processes_and_this_process_give_the_same_rows(tiny_zoo, tmp_path):
    config = config_for(
        tiny_zoo,
        metanets=["hparams"],
        num_train=[30],
        seeds=[0],
        options={"hparams": {"epochs": 20}},
    )
    here, there = (
        run(config, tmp_path / str(workers), workers=workers, quiet=True) for workers in (1, 2)
    )
    pd.testing.assert_frame_equal(here.drop(columns="seconds"), there.drop(columns="seconds"))
    assert (here["r2"] > 0.3).all(), "the accuracies of this zoo follow from the learning rate"


def test_an_error_of_a_metanet_names_its_cell(tiny_zoo, tmp_path, monkeypatch):
    def fail(cell: Cell, out: Path):
        raise ValueError("no luck")

    monkeypatch.setattr("studies.learnability.scores.fit", fail)
    with pytest.raises(
        ValueError,
        match="metanet 'hparams' on population 'standard', 40 training networks, seed 0: no luck",
    ):
        run(config_for(tiny_zoo, num_train="all"), tmp_path, workers=1, quiet=True)


def test_an_error_in_a_task_comes_through():
    with pytest.raises(ValueError, match="non-negative"):
        list(run_here(time.sleep, [-1.0]))


def test_closing_a_parallel_run_ends_its_workers_at_once():
    running = run_in_processes(time.sleep, [0.0, 300.0, 300.0, 300.0], 2)
    start = time.perf_counter()
    assert next(running) == 0.0
    running.close()
    assert multiprocessing.active_children() == []
    assert time.perf_counter() - start < 60
