"""A learnability study: its grid, its cache, its errors."""

import dataclasses
import functools

import pandas as pd
import pytest
from pydantic import ValidationError

from data_gen.executors.executor import InThisProcess
from data_gen.executors.local import LocalProcesses
from studies.common import grid, runner
from studies.learnability import fits
from studies.learnability.config import Learnability
from studies.learnability.fits import FitCell, Place
from studies.learnability.plan import match_test_networks, plan_study
from studies.learnability.plugins import Plugin
from studies.learnability.study import STUDY
from tests.studies.zoos import write_zoo
from zoo.store.zoo import load

METRICS = ("r2", "kendall_tau", "spearman", "mae")


run = functools.partial(runner.run, STUDY)


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
    rows = run(config_for(tiny_zoo), tmp_path, quiet=True)
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
    first = run(config_for(tiny_zoo), tmp_path, quiet=True)
    counted_fit.cells.clear()
    second = run(config_for(tiny_zoo), tmp_path, quiet=True)
    assert counted_fit.cells == []
    pd.testing.assert_frame_equal(first, second)


def test_a_larger_grid_fits_the_new_cells_only(tiny_zoo, tmp_path, counted_fit):
    run(config_for(tiny_zoo), tmp_path, quiet=True)
    counted_fit.cells.clear()
    run(config_for(tiny_zoo, seeds=[0, 1, 2]), tmp_path, quiet=True)
    assert len(counted_fit.cells) == 2 * 2 * 2
    assert {cell.seed for cell in counted_fit.cells} == {2}


def test_scoring_anew_needs_no_fit(tiny_zoo, tmp_path, counted_fit):
    first = run(config_for(tiny_zoo), tmp_path, quiet=True)
    counted_fit.cells.clear()
    second = run(config_for(tiny_zoo, num_bootstrap=40, match_bins=4), tmp_path, quiet=True)
    assert counted_fit.cells == []
    assert (first["r2_low"] != second["r2_low"]).any()


def test_a_run_that_stops_loses_the_cell_in_progress_only(
    tiny_zoo, tmp_path, counted_fit, monkeypatch
):
    @functools.wraps(fits.fit)
    def stop_at_fourth(cell: FitCell):
        if len(counted_fit.cells) == 3:
            raise KeyboardInterrupt
        return counted_fit(cell)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("studies.learnability.plan.fit", stop_at_fourth)
        run(config_for(tiny_zoo), tmp_path, quiet=True)
    assert len(list((tmp_path / "cells").iterdir())) == 3 + 3, "fits and their scores"
    run(config_for(tiny_zoo), tmp_path, quiet=True)
    assert len(counted_fit.cells) == 16


def test_the_key_of_a_fit_changes_with_everything_but_the_place_of_the_zoo(tmp_path, monkeypatch):
    cell = FitCell(
        tmp_path, tmp_path, "standard", "f" * 64, "mlp", "test_accuracy", 10, 0, {"epochs": 3}
    )
    changes = {
        "population": "other",
        "fingerprint": "e" * 64,
        "metanet": "gbm",
        "target": "test_loss",
        "num_train": 11,
        "seed": 1,
        "options": {"epochs": 4},
        "steps": "(Augment(noise=0.0),)",
        "shuffled": True,
        "elsewhere": (Place(tmp_path, "standard", "d" * 64, "other/standard"),),
        "plugins": (Plugin("metanet", "mlp", "mine", "Mine", "c" * 64),),
    }

    def key(cell, code="code"):
        return grid.Measurement(fits.fit, cell, tmp_path, code).key

    keys = {
        key(cell),
        key(cell, "another version"),
        *(key(dataclasses.replace(cell, **{name: value})) for name, value in changes.items()),
    }
    monkeypatch.setattr(grid, "FORMAT", 0)
    keys.add(key(cell))
    assert len(keys) == len(changes) + 3
    moved = dataclasses.replace(cell, zoo=tmp_path / "elsewhere", folder=tmp_path / "derived")
    assert key(moved) == key(cell)


def test_scores_depend_on_the_fit_the_matched_networks_and_the_bootstrap(tiny_zoo, tmp_path):
    scored = plan_study(config_for(tiny_zoo), tmp_path)[0]
    (fitted,) = scored.needs
    changes = {"matched": {"standard": (1,)}, "match_minimum": 3, "num_bootstrap": 21}
    cells = [dataclasses.replace(scored.cell, **{name: v}) for name, v in changes.items()]
    others = [dataclasses.replace(scored, cell=cell) for cell in cells]
    others.append(dataclasses.replace(scored, needs=(dataclasses.replace(fitted, code="newer"),)))
    assert len({scored.key, *(other.key for other in others)}) == 5


def test_populations_with_other_labels_are_matched(tmp_path, counted_fit):
    zoo = write_zoo(tmp_path / "zoo", counts=(20, 4, 200), shift=0.1)
    config = config_for(zoo, num_train=[10], match_minimum=30)
    rows = run(config, tmp_path / "out", quiet=True)
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
    rows = run(config_for(zoo, num_train=[10], match_minimum=30), tmp_path / "out", quiet=True)
    assert rows[[f"matched_{name}" for name in METRICS]].isna().all(axis=None)
    assert rows["note"].str.contains("label-matched test networks, 30 needed").all()
    assert rows["r2"].notna().all()


def test_diverged_networks_are_left_out_of_the_test(tmp_path, counted_fit):
    zoo = write_zoo(tmp_path / "zoo", num_diverged=3)
    rows = run(config_for(zoo, num_train=[10]), tmp_path / "out", quiet=True)
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
        run(config_for(tiny_zoo, **changes), tmp_path, quiet=True)
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
    planned = plan_study(config_for(tiny_zoo, num_train=["all", 40], seeds=[0]), tmp_path)
    assert [scored.cell.fit.num_train for scored in planned] == [40] * 4


def test_a_damaged_cell_is_named(tiny_zoo, tmp_path, counted_fit):
    run(config_for(tiny_zoo), tmp_path, quiet=True)
    (fitted,) = plan_study(config_for(tiny_zoo), tmp_path)[0].needs
    fitted.path.write_bytes(fitted.path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{fitted.path.name}.*delete the file"):
        fitted.rows()


def test_predictions_survive_the_file(tiny_zoo, tmp_path, counted_fit):
    run(config_for(tiny_zoo), tmp_path, quiet=True)
    (fitted,) = plan_study(config_for(tiny_zoo), tmp_path)[0].needs
    stored = fitted.rows()
    assert stored["test_population"].unique().tolist() == ["standard"]
    pd.testing.assert_frame_equal(stored, counted_fit(fitted.cell), check_exact=True)


def test_processes_and_this_process_give_the_same_rows(tiny_zoo, tmp_path):
    config = config_for(
        tiny_zoo,
        metanets=["hparams"],
        num_train=[30],
        seeds=[0],
        options={"hparams": {"epochs": 20}},
    )
    here, there = (
        run(config, tmp_path / type(executor).__name__, executor=executor, quiet=True)
        for executor in (InThisProcess(1), LocalProcesses(2))
    )
    pd.testing.assert_frame_equal(here.drop(columns="seconds"), there.drop(columns="seconds"))
    assert (here["r2"] > 0.3).all(), "the accuracies of this zoo follow from the learning rate"


def test_an_error_of_a_metanet_names_its_cell(tiny_zoo, tmp_path, monkeypatch):
    @functools.wraps(fits.fit)
    def fail(cell: FitCell):
        raise ValueError("no luck")

    monkeypatch.setattr("studies.learnability.plan.fit", fail)
    with pytest.raises(
        ValueError,
        match=r"^metanet 'hparams' on population 'standard', "
        r"40 training networks, seed 0: no luck$",
    ):
        run(config_for(tiny_zoo, num_train="all"), tmp_path, quiet=True)
