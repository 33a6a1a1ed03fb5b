"""Losses on segments against a plain loop over modules, shapes of curves known by hand, tables by
brute force.
"""

import functools
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from data_gen.config import Job
from data_gen.generation import generate
from data_gen.tasks.task import Images, Task, load_task
from data_gen.training.runs import DataView
from studies.cli import main
from studies.common import grid, runner
from studies.common.intervals import bootstrap_mean
from studies.common.segments import between
from studies.interpolation import curves as interpolation_curves
from studies.interpolation.config import Interpolation
from studies.interpolation.curves import measure_curves, segment_losses
from studies.interpolation.study import STUDY
from studies.interpolation.tables import (
    MEASURES,
    bin_shares,
    correlate,
    differences,
    share_interval,
    summarize,
)
from tests.reference.data_gen_training import labels_seen, own_part
from zoo.architectures.base import Architecture
from zoo.store.zoo import load
from zoo.weight_space import NeuronGroup, WeightSpace

MLP = {"name": "mlp", "hidden": [6, 8]}
run, format_study, write_report = (
    functools.partial(function, STUDY)
    for function in (runner.run, runner.format_study, runner.write_report)
)
JOB = {
    "task": {"name": "digits", "train_size": 60, "test_size": 20},
    "count": 12,
    "checkpoints": 3,
    "hyperparameters": {
        "lr": {"log_uniform": [0.01, 0.3]},
        "optimizer": {"choice": ["sgd", "adamw"]},
        "label_noise": {"uniform": [0.0, 0.5]},
        "label_smoothing": {"uniform": [0.1, 0.2]},
        "train_fraction": {"uniform": [0.2, 1.0]},
        "steps": {"int_range": [5, 20]},
    },
    "populations": {
        "standard": {"architecture": MLP},
        "w_asymmetric": {"architecture": MLP, "asymmetry": {"kind": "w"}},
    },
}


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory) -> Path:
    return generate(
        Job.model_validate(JOB), tmp_path_factory.mktemp("zoos") / "tiny", compile=False, quiet=True
    )


@pytest.fixture(scope="module")
def config(zoo_folder) -> Interpolation:
    return Interpolation(zoo=zoo_folder, num_points=7, block=5, num_bins=2, num_bootstrap=100)


@pytest.fixture(scope="module")
def rows(config, tmp_path_factory) -> pd.DataFrame:
    return run(config, tmp_path_factory.mktemp("studies") / "tiny", quiet=True)


def module_of(params: dict[str, torch.Tensor]) -> nn.Module:
    """The MLP of the job as a module."""
    names = sorted(
        {name.rsplit(".", 1)[0] for name in params}, key=lambda name: int(name.split(".")[1])
    )
    layers = []
    for name in names:
        out_size, in_size = params[f"{name}.weight"].shape
        linear = nn.Linear(in_size, out_size, dtype=torch.float64)
        linear.load_state_dict(
            {kind: params[f"{name}.{kind}"].double() for kind in ("weight", "bias")}
        )
        layers += [linear, nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def slow_losses(
    population, job: Job, split: str, row: int, smoothed: bool, num_points: int
) -> list[float]:
    """Losses of one network, point by point and image by image."""
    table, task = population.table(split).iloc[row], load_task(job.task)
    network = int(table["network_id"])
    images = own_part(task, job.seed, network, int(table["train_size"]))
    labels = labels_seen(task, job.seed, network, table["label_noise"])
    _, params = population.trajectory(split)
    losses = []
    for t in range(num_points):
        a = t / (num_points - 1)
        between = {
            n: (1 - a) * p[row, 0].double() + a * p[row, -1].double() for n, p in params.items()
        }
        module = module_of(between)
        loss = nn.CrossEntropyLoss(
            label_smoothing=float(table["label_smoothing"]) if smoothed else 0.0
        )
        mean, std = task.mean.double(), task.std.double()
        per_image = [
            loss(module(((task.train.x[i].double() - mean) / std)[None]), labels[i][None]).item()
            for i in images
        ]
        losses.append(sum(per_image) / len(per_image))
    return losses


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("name", ["standard", "w_asymmetric"])
def test_losses_are_those_of_a_plain_loop_over_modules(name, smoothed, config, tmp_path):
    config = config.model_copy(
        update={"label_smoothing": smoothed, "populations": (name,), "baseline": name}
    )
    measured = run(config, tmp_path, quiet=True)
    job, population = Job.model_validate(JOB), load(config.zoo)[name]
    for network, split, row in (
        (0, "train", 0),
        (5, "train", 5),
        (7, "validation", 1),
        (11, "test", 2),
    ):
        slow = slow_losses(population, job, split, row, smoothed, config.num_points)
        np.testing.assert_allclose(measured["losses"][network], slow, rtol=1e-12)


def test_the_end_of_the_segment_is_the_training_loss_in_the_zoo(rows, zoo_folder):
    for name, population in load(zoo_folder).items():
        stored = np.concatenate(
            [population.table(split)["train_loss"] for split in population.splits]
        )
        ends = [losses[-1] for losses in rows.loc[rows["population"] == name, "losses"]]
        np.testing.assert_allclose(ends, stored, rtol=1e-5)


def test_rows_do_not_depend_on_blocks_or_memory(config, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(interpolation_curves, "MEMORY", 1)
    other = run(config.model_copy(update={"block": 12}), tmp_path, quiet=True)
    assert rows["network_id"].to_list() == list(range(12)) * 2
    pd.testing.assert_frame_equal(other.drop(columns="losses"), rows.drop(columns="losses"))
    np.testing.assert_allclose(np.stack(other["losses"]), np.stack(rows["losses"]), rtol=1e-12)


def test_a_second_run_measures_nothing(config, rows, tmp_path, monkeypatch):
    first = run(config, tmp_path, quiet=True)
    monkeypatch.setattr(grid, "complete", lambda _: pytest.fail("measured anew"))
    pd.testing.assert_frame_equal(run(config, tmp_path, quiet=True), first)


def test_first_networks_and_first_images(config, rows, tmp_path):
    config = config.model_copy(update={"num_networks": 7, "num_images": 1})
    measured = run(config, tmp_path, quiet=True)
    assert measured["network_id"].to_list() == list(range(7)) * 2
    assert not np.allclose(
        np.stack(measured["losses"]), np.stack(rows.loc[rows["network_id"] < 7, "losses"])
    )


def bowl() -> Architecture:
    """Two logits `(0, -w^2)`.

    With the right label 0, the loss is `log(1 + exp(-w^2))`; falls with |w|.
    """
    space = WeightSpace({"y": NeuronGroup(1, permutable=False)}, {"w": "y"})

    def forward(params, x, _activate):
        logit = -(params["w"] ** 2).expand(len(x), 1)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)

    return Architecture(space, lambda _generator: {"w": torch.zeros(1)}, forward)


def bowl_losses(start: float, end: float, num_points: int = 5) -> np.ndarray:
    images = Images(torch.zeros(3, 1, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
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


def made_up(num: int = 30, diverged: int = 4) -> pd.DataFrame:
    """Rows of two populations.

    The first networks of the second one diverged, one of the first one has no finite curve.
    """
    random, tables = np.random.default_rng(0), []
    for name, shift in (("standard", 0.0), ("other", -0.4)):
        losses = (
            np.sort(random.standard_normal((num, 5)))[:, ::-1]
            + 0.2 * random.standard_normal((num, 5))
            + shift
        )
        if name == "standard":
            losses[7, 2] = np.inf
        bad = ~np.isfinite(losses).all(1) | ((np.arange(num) < diverged) & (name == "other"))
        measures = {
            key: np.where(bad, np.nan, values) for key, values in measure_curves(losses).items()
        }
        lr = np.random.default_rng(1).uniform(0, 1, num)
        kind = np.array(["sgd", "adamw"])[np.arange(num) % 2]
        ids = {
            "population": name,
            "network_id": np.arange(num),
            "lr": lr,
            "optimizer": kind,
            "steps": 3,
            "diverged": bad,
        }
        tables.append(pd.DataFrame({**ids, **measures, "losses": list(losses)}))
    return pd.concat(tables, ignore_index=True)


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


def test_a_diverged_network_of_a_zoo_is_marked(config, tmp_path):
    hyperparameters = JOB["hyperparameters"] | {"lr": {"choice": [0.05, 1e30]}, "optimizer": "sgd"}
    job = Job.model_validate({**JOB, "hyperparameters": hyperparameters})
    zoo = generate(job, tmp_path / "zoo", compile=False, quiet=True)
    rows = run(config.model_copy(update={"zoo": zoo}), tmp_path / "study", quiet=True)
    assert len(rows) == 24
    assert (rows["diverged"] == (rows["lr"] == 1e30)).all()
    assert 0 < rows["diverged"].sum() < len(rows)
    assert rows.loc[rows["diverged"], list(MEASURES)].isna().all(axis=None)
    lines = summarize(rows, 100)
    assert (lines["n"] + lines["diverged"]).to_list() == [12] * 2
    assert "diverged" in write_report(config, rows, tmp_path / "study").read_text(encoding="utf-8")


def test_a_population_in_which_all_diverged_is_shown(tmp_path, config):
    rows = made_up()
    rows.loc[rows["population"] == "other", "diverged"] = True
    assert "n/a" in format_study(config, rows, tmp_path)
    assert "other 30" in write_report(config, rows, tmp_path).read_text(encoding="utf-8")


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


def test_what_cannot_be_measured_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="population 'other': expected one of the populations"):
        run(config.model_copy(update={"baseline": "other"}), tmp_path, quiet=True)
    with pytest.raises(ValueError, match="population 'standard': expected one of the populations"):
        run(config.model_copy(update={"populations": ("w_asymmetric",)}), tmp_path, quiet=True)
    job = Job.model_validate({**JOB, "checkpoints": 0})
    bare = generate(job, tmp_path / "bare", compile=False, quiet=True)
    with pytest.raises(ValueError, match="expected a zoo of a job with checkpoints >= 2"):
        run(config.model_copy(update={"zoo": bare}), tmp_path, quiet=True)


def test_batch_norm_is_refused():
    space, marks = bowl().space, {"statistic.w": torch.ones(1, dtype=torch.bool)}
    both = Architecture(
        space, bowl().draw, bowl().forward, marks, lambda params, x, activate: (x, params)
    )
    images = Images(torch.zeros(3, 1, 1), torch.zeros(3, dtype=torch.int64))
    task = Task(images, images, 2, torch.ones(1, 1), torch.ones(1, 1))
    ends = ({"w": torch.zeros(1, 1)}, {"w": torch.zeros(1, 1)})
    with pytest.raises(ValueError, match="expected an architecture without batch norm"):
        segment_losses(
            both, task, DataView(None, images.y[None]), ends, torch.tensor([3]), torch.zeros(1), 3
        )


def test_the_command_makes_zoo_rows_and_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(str({**JOB, "count": 4}).replace("'", '"'), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(
        "zoo: zoo\njob: job.yaml\nnum_bootstrap: 100\n", encoding="utf-8"
    )
    arguments = [
        "study",
        "interpolation",
        "--config",
        "study.yaml",
        "--out",
        "out",
        "--workers",
        "0",
        "--quiet",
    ]
    shown = (
        CliRunner()
        .invoke(main, [*arguments, "--set", "num_points=5"], catch_exceptions=False)
        .output
    )
    assert "share monotonic" in shown
    assert len(pd.read_parquet("out/rows.parquet")["losses"][0]) == 5
    assert "<svg" not in Path("out/report.html").read_text(encoding="utf-8")
    assert Path("out/report.html").read_text(encoding="utf-8").count("<figure>") == 3
