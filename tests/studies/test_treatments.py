"""The grid of treatments, shuffled labels, transfer.

What is fitted, what is scored, what has no row.
"""

import numpy as np
import pandas as pd
import pytest

from metanet.estimator import Metanet
from studies.common.grid import cell_path, read_cell
from studies.common.runner import format_study, write_report
from studies.learnability.plan import plan_study
from studies.learnability.shuffled import with_shuffled_labels
from studies.learnability.study import STUDY
from studies.learnability.transfer import impossible, other_populations, why_not
from tests.studies.test_learnability import config_for, run
from tests.studies.zoos import write_zoo
from zoo.store.zoo import load


def lines_of(config, out):
    cells = [scored.cell for scored in plan_study(config, out)]
    return [
        (cell.fit.population, cell.fit.metanet, cell.treatment, cell.fit.num_train)
        for cell in cells
    ]


def test_treatments_apply_to_metanets_that_read_weights(tiny_zoo, tmp_path, counted_fit):
    config = config_for(
        tiny_zoo, treatments=["augment", "canonicalize"], num_train=["all"], seeds=[0]
    )
    rows = run(config, tmp_path, quiet=True)
    treatments = rows.groupby("metanet")["treatment"].unique().map(list).to_dict()
    assert treatments == {"hparams": ["none"], "mlp": ["none", "augment", "canonicalize"]}
    counted_fit.cells.clear()
    again = run(config, tmp_path, quiet=True)
    assert counted_fit.cells == []
    pd.testing.assert_frame_equal(rows, again)


def test_treated_names_metanets_and_their_treatments_and_sizes(tiny_zoo, tmp_path):
    labels = {"augment": "augment", "noisy": {"augment": {"noise": 0.05}}}
    config = config_for(
        tiny_zoo, metanets=["mlp", "statnn"], treatments=labels, seeds=[0], populations=["standard"]
    )
    chosen = config.model_copy(update={"treated": {"mlp": ("noisy",)}, "treated_num_train": (20,)})
    lines = {line[1:] for line in lines_of(chosen, tmp_path)}
    plain = {
        (metanet, "none", size) for metanet in ("hparams", "mlp", "statnn") for size in (10, 40)
    }
    assert lines == plain | {("mlp", "noisy", 20), ("mlp", "none", 20)}, (
        "what a treatment is compared with is there"
    )
    everywhere = {line[1:3] for line in lines_of(config, tmp_path)}
    assert {("statnn", "noisy"), ("mlp", "augment")} <= everywhere


def test_a_cell_knows_its_treatment_with_all_options(tiny_zoo, tmp_path):
    def keys(treatments):
        config = config_for(
            tiny_zoo, treatments=treatments, num_train=["all"], seeds=[0], populations=["standard"]
        )
        return {
            scored.cell.fit_key
            for scored in plan_study(config, tmp_path)
            if scored.cell.treatment != "none"
        }

    assert keys(["augment"]) == keys({"moved": {"augment": {"noise": 0.0}}})
    assert keys(["augment"]) != keys({"augment": {"augment": {"noise": 0.1}}})
    assert keys(["align+augment"]) != keys(["augment+align"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"treatments": ["agument"]},
            r"unknown treatment 'agument'; treatments are \['none', 'augment'",
        ),
        (
            {"treatments": {"a": {"augment": {"niose": 1}}}},
            "unknown option 'niose' of treatment 'augment'",
        ),
        (
            {"treatments": {"a": "augment", "b": {"augment": {}}}},
            "treatments 'a' and 'b' are the same",
        ),
        (
            {"treated": ["gbm"]},
            r"unknown metanet of the study: 'gbm'; known are \['hparams', 'mlp'\]",
        ),
        ({"treated": ["hparams"]}, "'hparams' reads no weights"),
        ({"treated": {"mlp": ["augment"]}}, r"unknown treatment: 'augment'; known are \['none'\]"),
        (
            {"treatments": ["augment"], "treated_num_train": [41]},
            "treated_num_train: 41 is more than the 40",
        ),
        ({"options": {"mlp": {"treatment": "augment"}}}, r"\['treatment'\] are set by the study"),
        ({"shuffled": "gbm"}, "unknown metanet of the study: 'gbm'"),
        ({"treatments": {"none": "augment"}}, "the label 'none' stands for no treatment"),
        ({"reach": [1.5]}, "reach"),
    ],
)
def test_what_cannot_be_done_is_refused(tiny_zoo, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan_study(config_for(tiny_zoo, **changes), tmp_path)


def test_shuffled_labels_are_the_same_values_in_another_order(tmp_path):
    population = load(write_zoo(tmp_path / "zoo", num_diverged=3))["standard"]
    shuffled = with_shuffled_labels(population, "test_accuracy", 0)
    for split in ("train", "validation"):
        before, after = population.table(split), shuffled.table(split)
        old, new = before["test_accuracy"].to_numpy(), after["test_accuracy"].to_numpy()
        assert (np.isnan(old) == np.isnan(new)).all(), "networks that diverged still have no label"
        np.testing.assert_array_equal(np.sort(old), np.sort(new))
        assert (old != new)[3:].mean() > 0.8
        pd.testing.assert_frame_equal(
            before.drop(columns="test_accuracy"), after.drop(columns="test_accuracy")
        )
        assert not shuffled.table(split).equals(
            with_shuffled_labels(population, "test_accuracy", 1).table(split)
        )
    pd.testing.assert_frame_equal(population.table("test"), shuffled.table("test"))


def test_nothing_is_learned_from_shuffled_labels(tiny_zoo, tmp_path):
    settings = {
        "metanets": ["gbm"],
        "num_train": ["all"],
        "seeds": [0, 1],
        "options": {"gbm": {"epochs": 20}},
    }
    rows = run(config_for(tiny_zoo, shuffled=True, **settings), tmp_path, quiet=True)
    shuffled = rows[rows["labels"] == "shuffled"]
    assert shuffled[["population", "metanet", "seed"]].to_numpy().tolist() == [
        ["standard", "gbm", 0],
        ["w_asymmetric", "gbm", 0],
    ]
    assert (shuffled["r2"] < 0.15).all()
    learned = rows[(rows["labels"] == "true") & (rows["metanet"] == "gbm")]
    assert (learned["r2"] > 0.3).all()


def test_a_fit_is_scored_elsewhere_too(tiny_zoo, tmp_path, counted_fit):
    other = write_zoo(tmp_path / "other", ("standard",), shift=0.1)
    config = config_for(
        tiny_zoo, transfer=True, transfer_zoos=[other], seeds=[0], num_train=["all"], shuffled=True
    )
    rows = run(config, tmp_path / "out", quiet=True)
    assert len(counted_fit.cells) == rows["cell"].nunique() == 2 * 2 + 2, (
        "one fit, several test populations"
    )
    mlp = rows[(rows["metanet"] == "mlp") & (rows["labels"] == "true")]
    assert mlp.groupby("population")["test_population"].unique().map(list).to_dict() == {
        "standard": ["standard", "w_asymmetric", "other/standard"],
        "w_asymmetric": ["w_asymmetric", "standard"],
    }
    assert mlp["n_matched"].min() == 24
    assert impossible(config, dict(load(tiny_zoo))) == [
        "The zoo other has no population w_asymmetric."
    ]
    page = write_report(STUDY, config, rows, tmp_path / "out").read_text(encoding="utf-8")
    assert "The zoo other has no population w_asymmetric." in page
    assert "Transfer, predicting test_accuracy" in format_study(
        STUDY, config, rows, tmp_path / "out"
    )


def test_transfer_predicts_what_the_metanet_itself_predicts(tiny_zoo, tmp_path):
    settings = {
        "metanets": ["statnn"],
        "num_train": [20],
        "seeds": [1],
        "options": {"statnn": {"epochs": 2}},
    }
    config = config_for(
        tiny_zoo, transfer=True, populations=["standard", "w_asymmetric"], **settings
    )
    rows = run(config, tmp_path, quiet=True)
    row = rows.query(
        "metanet == 'statnn' and population == 'standard' and test_population == 'w_asymmetric'"
    ).iloc[0]
    zoo = load(tiny_zoo)
    fitted = Metanet("statnn", seed=1, epochs=2).fit(zoo["standard"], num_train=20)
    truth, prediction = fitted.predict_examples(zoo["w_asymmetric"])
    table = read_cell(cell_path(tmp_path, row["cell"]))
    stored = table.loc[table["test_population"] == "w_asymmetric"]
    np.testing.assert_array_equal(stored["truth"], truth)
    np.testing.assert_allclose(stored["prediction"], prediction, rtol=1e-6)


@pytest.mark.parametrize(
    ("metanet", "known"), [("statnn", set()), ("probe", set()), ("width_gmn", {"smaller"})]
)
def test_why_not_agrees_with_what_a_metanet_accepts(demo_populations, metanet, known):
    fitted = Metanet(metanet, epochs=1).fit(demo_populations["standard"])
    for name, other in demo_populations.items():
        reason = why_not(metanet, demo_populations["standard"], other)
        assert why_not("hparams", demo_populations["standard"], other) == ""
        if reason:
            with pytest.raises(
                ValueError, match=r"than the metanet was fitted on|other sizes of permutable groups"
            ):
                fitted.predict(other)
        else:
            assert np.isfinite(fitted.predict(other)).all()
        assert bool(reason) == (name not in {"standard", *known})


def test_zoos_of_one_name_are_refused(tiny_zoo, tmp_path):
    with pytest.raises(ValueError, match="different names"):
        other_populations(
            config_for(tiny_zoo, transfer_zoos=[tmp_path / "a" / "z", tmp_path / "b" / "z"]),
            {},
            "standard",
        )
