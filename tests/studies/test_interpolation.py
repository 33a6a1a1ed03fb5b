"""The study of interpolation against a plain loop over modules, on a small zoo."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from data_gen.config import Job
from data_gen.generation import generate
from data_gen.tasks.data import Part, Task
from data_gen.tasks.task import load_task
from data_gen.training.runs import DataView
from studies.cli import main
from studies.common import grid, runner
from studies.interpolation import curves as interpolation_curves
from studies.interpolation.config import Interpolation
from studies.interpolation.curves import segment_losses
from studies.interpolation.study import STUDY
from studies.interpolation.tables import MEASURES, summarize
from tests.reference.data_gen_training import labels_seen, own_part
from tests.studies.curves import bowl, made_up
from zoo.architectures.base import Architecture
from zoo.store.zoo import load

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


@pytest.mark.filterwarnings("ignore:R\\^2 is not defined")  # one learning rate is left
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
    images = Part(torch.zeros(3, 1, 1), torch.zeros(3, dtype=torch.int64))
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
