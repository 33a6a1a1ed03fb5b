"""What symmetry handling buys, against loops over resamples.

Networks needed, against curves with known answers.
"""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from studies.learnability.ablation import (
    ablate,
    ablation_cells,
    explain_ablation,
    plan_ablation,
)
from studies.learnability.efficiency import efficiency_cells, efficiency_lines, networks_needed
from studies.learnability.fits import predictions_of
from studies.learnability.plan import plan_study
from studies.learnability.summary import average_seeds
from tests.studies.test_learnability import config_for, run

RESAMPLES = 25


@pytest.fixture
def fitted(tiny_zoo, tmp_path):
    """Lines with known predictions.

    The networks of the populations overlap, but are not the same.
    """
    config = config_for(
        tiny_zoo,
        treatments=["augment"],
        num_train=["all"],
        populations=["w_asymmetric", "standard"],
    )
    (ablation,) = plan_ablation(config, plan_study(config, tmp_path))
    generator, tables, matched = np.random.default_rng(5), [], []
    for line in ablation.cell.lines:
        ids = np.arange(0, 20) if line.population == "standard" else np.arange(3, 24)
        truth = np.sin(ids + 0.1 * len(ids))
        prediction = truth + generator.normal(0, 0.2 + 0.3 * (line.treatment == "none"), len(ids))
        taken = {"num_train": 40, "num_dropped": 0, "seconds": 0.0}
        tables.append(predictions_of(line.population, ids, truth, prediction, **taken))
        matched.append(tuple(ids[::2].tolist()))
    cell = replace(ablation.cell, matched=tuple(matched), num_bootstrap=RESAMPLES)
    return cell, tables


def slow_metric(name, truth, prediction, chosen):
    """A metric of the networks at the positions `chosen`, which may repeat."""
    y, p = truth[chosen], prediction[chosen]
    if name == "r2":
        return 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return kendalltau(y, p).statistic


def slow_difference(fitted, metric, ours, other, matched):
    """Value and ends of the interval of the difference of two lines, resample by resample."""
    cell, tables = fitted
    universe = sorted({int(i) for table in tables for i in table["network_id"]})
    draws = np.random.default_rng(0).multinomial(
        len(universe), [1 / len(universe)] * len(universe), size=RESAMPLES
    )

    def line_value(line, counts):
        values = []
        for handling, ids, table in zip(cell.lines, cell.matched, tables, strict=True):
            if (handling.metanet, handling.treatment, handling.population) != line:
                continue
            chosen = []
            for position, network in enumerate(table["network_id"].tolist()):
                if not matched or network in ids:
                    chosen += [position] * counts[universe.index(network)]
            truth, prediction = (table[name].to_numpy() for name in ("truth", "prediction"))
            values.append(slow_metric(metric, truth, prediction, chosen))
        return sum(values) / len(values)

    value = line_value(ours, [1] * len(universe)) - line_value(other, [1] * len(universe))
    differences = [
        line_value(ours, counts) - line_value(other, counts) for counts in draws.tolist()
    ]
    return value, *np.quantile(differences, [0.025, 0.975])


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize("metric", ["r2", "kendall_tau"])
def test_differences_are_those_of_plain_loops(fitted, metric, matched):
    table = ablate(fitted[0], *fitted[1]).set_index(["metanet", "treatment", "population"])
    name = f"matched_{metric}" if matched else metric
    for line in [
        ("mlp", "augment", "standard"),
        ("mlp", "augment", "w_asymmetric"),
        ("mlp", "none", "w_asymmetric"),
    ]:
        expected = slow_difference(fitted, metric, line, ("mlp", "none", "standard"), matched)
        np.testing.assert_allclose(
            [table.loc[line, f"{name}_gain{end}"] for end in ("", "_low", "_high")], expected
        )
    line = ("hparams", "none", "w_asymmetric")
    expected = slow_difference(fitted, metric, line, ("mlp", "none", "standard"), matched)
    np.testing.assert_allclose(
        [table.loc[line, f"{name}_over_flat{end}"] for end in ("", "_low", "_high")], expected
    )


def test_pairing_makes_the_interval_of_equal_lines_nothing(fitted):
    row = (
        ablate(fitted[0], *fitted[1])
        .query("metanet == 'mlp' and treatment == 'none' and population == 'standard'")
        .iloc[0]
    )
    assert row[["r2_gain", "r2_gain_low", "r2_gain_high"]].to_list() == [0, 0, 0]
    assert row["r2_low"] < row["r2"] < row["r2_high"]


def test_lines_come_by_metanet_treatment_population(fitted):
    table = ablate(fitted[0], *fitted[1])
    assert table[["metanet", "treatment", "population"]].to_numpy().tolist() == [
        ["hparams", "none", "w_asymmetric"],
        ["hparams", "none", "standard"],
        ["mlp", "none", "w_asymmetric"],
        ["mlp", "none", "standard"],
        ["mlp", "augment", "w_asymmetric"],
        ["mlp", "augment", "standard"],
    ]
    cells = ablation_cells(table)
    assert cells.iloc[3]["\u0394R\u00b2 to plain"] == "-"
    gain = table.iloc[5]
    mark = "*" if gain["r2_gain_low"] > 0 or gain["r2_gain_high"] < 0 else ""
    text = f"{gain['r2_gain']:+.2f} [{gain['r2_gain_low']:+.2f}, {gain['r2_gain_high']:+.2f}]{mark}"
    assert cells.iloc[5]["\u0394R\u00b2 to plain"] == text
    assert "population standard" in explain_ablation(table)


def test_without_a_comparable_line_there_is_no_difference(tiny_zoo, tmp_path, counted_fit):
    config = config_for(
        tiny_zoo,
        metanets=["statnn"],
        num_train=["all"],
        populations=["w_asymmetric"],
        match_minimum=30,
    )
    run(config, tmp_path, quiet=True)
    table = pd.read_parquet(tmp_path / "ablation.parquet")
    assert (table["baseline"] == "w_asymmetric").all(), (
        "without a standard population the first one is the baseline"
    )
    assert table[["r2_over_flat", "matched_r2", "matched_r2_gain"]].isna().all(axis=None)
    assert not any("to mlp" in name for name in ablation_cells(table).columns)
    assert "mlp" not in explain_ablation(table)


@pytest.mark.parametrize(
    ("curve", "needed"),
    [
        ([0.0, 0.4, 0.6], math.sqrt(100 * 1000)),
        ([0.4, 0.5, 0.9], 100),
        ([0.1, 0.2, 0.3], math.inf),
        ([0.7, 0.2, 0.9], 0),
        ([0.1, 0.9, 0.2], 10 ** (1 + 0.5)),
        ([math.nan, 0.1, 0.9], 10 ** (2 + 0.5)),
    ],
)
def test_networks_needed_are_interpolated_in_log_n(curve, needed):
    assert networks_needed(np.array([10.0, 100.0, 1000.0]), np.array(curve), 0.5) == pytest.approx(
        needed
    )


def test_the_interval_of_networks_needed_comes_from_the_ends(tiny_zoo, tmp_path, counted_fit):
    rows = run(
        config_for(tiny_zoo, num_train=[10, 20, "all"], populations=["standard"]),
        tmp_path,
        quiet=True,
    )
    mlp = rows["metanet"] == "mlp"
    for end, curve in (
        ("", (0.2, 0.6, 0.7)),
        ("_low", (0.1, 0.3, 0.5)),
        ("_high", (0.5, 0.8, 0.9)),
    ):
        rows.loc[mlp, f"r2{end}"] = rows.loc[mlp, "num_train"].map(
            dict(zip((10, 20, 40), curve, strict=True))
        )
    lines = efficiency_lines(average_seeds(rows[mlp]), (0.5, 0.8))
    assert lines["networks"].to_list() == [pytest.approx(10 * 2 ** (3 / 4)), math.inf]
    cells = efficiency_cells(lines)
    assert cells.iloc[0].to_list() == ["mlp", "standard", "17 [≤10, 40]", "not reached [20, >40]"]


def test_one_number_of_training_networks_is_no_curve(tiny_zoo, tmp_path, counted_fit):
    rows = run(config_for(tiny_zoo, num_train=["all"]), tmp_path, quiet=True)
    assert efficiency_lines(average_seeds(rows), (0.5,)).empty
