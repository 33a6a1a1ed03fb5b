"""Variational inference: lock step, what stays fixed, measures by hand; the study as a whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch.distributions import MultivariateNormal, kl_divergence

from data_gen.config import PopulationConfig
from data_gen.rng import generator
from data_gen.tasks.data import Part, Task
from data_gen.tasks.task import TaskConfig, load_task
from studies import cli
from studies.bayesian import chains, variational
from studies.bayesian.calibration import brier_score, calibration_error
from studies.bayesian.config import Bayesian
from studies.bayesian.local_reparametrization import output_noise_size, sample_outputs
from studies.bayesian.networks import build
from studies.bayesian.posterior import Posterior, sample_weights, support_of, weight_noise_size
from studies.bayesian.posterior import kl_divergence as our_kl
from studies.bayesian.study import STUDY, inferences
from studies.bayesian.variational import InferenceCell, evaluate, infer
from studies.common import runner
from studies.common.base import PlainConfig, StudyConfig
from studies.common.intervals import bootstrap_mean
from tests.studies.inference import KINDS, MLP, dense_covariance
from zoo.config import ConfigError, read_config
from zoo.params import flatten


def small_task(dtype=torch.float64):
    random = generator(0, "task")
    x = torch.randn(50, 1, 5, generator=random)
    y = (x[:, 0, 0] > 0).long() + (x[:, 0, 1] > 0).long()
    part = Part(x, y)
    return Task(part, Part(x[:20], y[:20]), 3, torch.zeros(1, 1), torch.ones(1, 1)).to("cpu", dtype)


def small_inference(kind, **changes):
    population = PopulationConfig(architecture=MLP, asymmetry=KINDS[kind])
    values = {
        "rank": 2,
        "init_scale": 1.0,
        "prior_std": 1.0,
        "initial_std": 0.05,
        "lr": 0.01,
        "batch_size": 8,
        "epochs": 2,
    }
    values |= {"records": 2, "seeds": (0, 5), "samples": 3, "train_images": 30} | changes
    return InferenceCell(
        architecture="mlp3", asymmetry=kind, task=TaskConfig(), population=population, **values
    )


def end_of(cell, architecture, task):
    return [
        (epoch, Posterior(*(part.clone() for part in posterior)))
        for epoch, posterior in infer(cell, architecture, task)
    ]


@pytest.mark.parametrize(("kind", "local"), [("standard", True), ("w", True), ("sigma", False)])
def test_lock_step_of_seeds_is_what_each_does_alone(kind, local, monkeypatch):
    monkeypatch.setattr(variational, "is_mlp", lambda _: local)
    cell, task = small_inference(kind), small_task()
    architecture = build(cell.population, task).to("cpu", torch.float64)
    together = end_of(cell, architecture, task)
    assert [epoch for epoch, _ in together] == [0, 1, 2]
    for i, seed in enumerate(cell.seeds):
        alone_cell = replace(cell, seeds=(seed,))
        alone = end_of(alone_cell, architecture, task)
        for (_, many), (_, one) in zip(together, alone, strict=True):
            for a, b in zip(many, one, strict=True):
                torch.testing.assert_close(a[i], b[0], rtol=1e-9, atol=1e-9)
        scores = evaluate(cell, architecture, task, together[-1][1], 2)
        single = evaluate(alone_cell, architecture, task, alone[-1][1], 2)
        for name, value in single.items():
            torch.testing.assert_close(scores[name][i], value[0], rtol=1e-9, atol=1e-9)


def test_fixed_entries_never_move_and_free_ones_do():
    cell, task = small_inference("w"), small_task()
    architecture = build(cell.population, task).to("cpu", torch.float64)
    support = support_of(architecture)
    start, *_, end = end_of(cell, architecture, task)
    moved = end[1].mean != start[1].mean
    assert not moved[:, ~support.free].any()
    assert moved[:, support.free].all()
    noise = torch.randn(weight_noise_size(support, 2), generator=generator(0), dtype=torch.float64)
    drawn = flatten(
        support.space, sample_weights(support, Posterior(*(part[0] for part in end[1])), noise)
    )
    fixed = flatten(support.space, architecture.init(generator(9)))
    torch.testing.assert_close(drawn[~support.free], fixed[~support.free].double(), rtol=0, atol=0)


def test_steps_are_adam_on_the_negative_elbo():
    """Five steps of one seed by a loop over images and torch's own distributions.

    Adam's first step hardly depends on the size of the gradient, and a batch of all images would
    not tell what the divergence is divided by.
    """
    cell, task = small_inference("w", seeds=(4,), epochs=1, records=1, batch_size=10), small_task()
    architecture = build(cell.population, task).to("cpu", torch.float64)
    support = support_of(architecture)
    free, size = support.free, int(support.free.sum())
    (_, start), (_, end) = end_of(cell, architecture, task)
    leaves = [part[0].clone().requires_grad_() for part in start]
    posterior, optimizer = Posterior(*leaves), torch.optim.Adam(leaves, lr=cell.lr)
    prior = MultivariateNormal(
        torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    )
    order = torch.cat([variational.batches(cell, step, 50)[0] for step in range(5)])
    assert sorted(order.tolist()) == list(range(50))
    random = generator(4, "noise")
    for batch in order.split(10):
        noise = torch.randn(
            (10, output_noise_size(architecture, 2)), generator=random, dtype=torch.float64
        )
        loss = torch.zeros((), dtype=torch.float64)
        for image, noise_of_image in zip(batch.tolist(), noise, strict=True):
            logits = sample_outputs(
                architecture, posterior, task.train.x[image : image + 1], noise_of_image[None]
            )
            loss = loss + F.cross_entropy(logits, task.train.y[image : image + 1]) / 10
        dense = MultivariateNormal(
            posterior.mean[free], dense_covariance(support, posterior)[free][:, free]
        )
        optimizer.zero_grad()
        (loss + kl_divergence(dense, prior) / 50).backward()
        optimizer.step()
    torch.testing.assert_close(end.mean[0], posterior.mean.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        end.factor[0][:, support.correlated], posterior.factor.detach()[:, support.correlated]
    )


def test_evaluation_is_a_loop_over_draws():
    cell, task = small_inference("w", seeds=(2,)), small_task()
    architecture = build(cell.population, task).to("cpu", torch.float64)
    support = support_of(architecture)
    posterior = end_of(cell, architecture, task)[-1][1]
    scores, one = (
        evaluate(cell, architecture, task, posterior, 2),
        Posterior(*(part[0] for part in posterior)),
    )
    random, losses, probabilities = generator(2, "evaluation", 2), [], []
    for _ in range(3):
        noise = torch.randn(weight_noise_size(support, 2), generator=random, dtype=torch.float64)
        params = sample_weights(support, one, noise)
        losses.append(
            float(F.cross_entropy(architecture.apply(params, task.train.x[:30]), task.train.y[:30]))
        )
        probabilities.append(F.softmax(architecture.apply(params, task.test.x), -1))
    average, kl = sum(probabilities) / 3, float(our_kl(support, one, 1.0)) / 50
    picked = [float(average[i, label]) for i, label in enumerate(task.test.y.tolist())]
    assert float(scores["elbo"]) == pytest.approx(-np.mean(losses) - kl)
    assert float(scores["test_loss"]) == pytest.approx(-np.mean(np.log(picked)))
    assert float(scores["test_accuracy"]) == pytest.approx(
        float((average.argmax(-1) == task.test.y).double().mean())
    )


def test_calibration_error_and_brier_score_by_hand():
    """Confidences .9 (right), .92 (wrong) share a bin of ten.

    .6 (right) and .55 (wrong) lie in bins of their own.
    """
    p = torch.tensor([[0.9, 0.1], [0.08, 0.92], [0.6, 0.4], [0.45, 0.55]], dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 0])
    expected = (
        abs(1 - 0.9) + abs(0 + 1 - 0.6 - 0.55)
    ) / 4  # .92 is in (.9, 1], .6 and .55 both in (.5, .6]
    expected += abs(0 - 0.92) / 4
    assert float(calibration_error(p, y, bins=10)) == pytest.approx(expected)
    brier = (2 * 0.1**2 + 2 * 0.92**2 + 2 * 0.4**2 + 2 * 0.55**2) / 4
    assert float(brier_score(p, y)) == pytest.approx(brier)
    batched = torch.stack([p, p.flip(1)])
    torch.testing.assert_close(
        calibration_error(batched, y, bins=10)[0], calibration_error(p, y, bins=10)
    )
    assert float(calibration_error(torch.eye(3, dtype=torch.float64), torch.arange(3))) == 0


def tiny_config():
    return Bayesian.model_validate(
        {
            "task": {"name": "digits", "train_size": 60, "test_size": 40},
            "architectures": {"mlp": {"name": "mlp", "hidden": [4]}},
            "asymmetries": {
                "standard": None,
                "w_asymmetric": {
                    "kind": "w",
                    "n_fix": {"layers.0.weight": 8, "layers.1.weight": 0},
                },
            },
            "epochs": 1,
            "records": 1,
            "seeds": 2,
            "samples": 2,
            "num_bootstrap": 50,
            "chains": {
                "hidden": [3],
                "points": 10,
                "test_points": 5,
                "chains": 2,
                "warmup": 1,
                "draws": 4,
                "leapfrog": 2,
                "asymmetries": {"standard": None},
            },
        }
    )


def test_the_study_measures_once_and_reports(tmp_path, monkeypatch):
    config = tiny_config()
    rows = runner.run(STUDY, config, tmp_path, quiet=True)
    assert len(rows.loc[rows["part"] == "variational"]) == 2 * 2 * 2
    assert set(rows.loc[rows["part"] == "chains", "space"]) == {"weights", "aligned", "function"}

    def fail(*_):
        raise RuntimeError("measured again")

    monkeypatch.setattr(variational, "infer", fail)
    monkeypatch.setattr(chains, "run_chains", fail)
    again = runner.run(STUDY, config, tmp_path, quiet=True)
    pd.testing.assert_frame_equal(rows, again)
    text = runner.format_study(STUDY, config, rows, tmp_path)
    assert "w_asymmetric" in text and "R-hat of weights" in text
    page = runner.write_report(STUDY, config, rows, tmp_path).read_text(encoding="utf-8")
    assert page.count("<figure>") == 3
    assert read_config(Bayesian, tmp_path / "config.yaml") == config


def test_an_interval_holds_the_mean():
    mean, low, high = bootstrap_mean(np.array([0.1, 0.2, 0.3, 0.4]), 500)
    assert (mean, low < mean < high) == (pytest.approx(0.25), True)


@pytest.mark.parametrize("recipe", ["small", "mnist", "full"])
def test_recipes_are_valid(recipe):
    path = Path(cli.__file__).parent / "recipes" / f"bayesian-{recipe}.yaml"
    config = read_config(Bayesian, path)
    assert config.folder("bayesian", path.stem) == Path("runs") / f"bayesian-{recipe}"
    if config.task.name == "digits":
        for cell in inferences(config):
            support_of(build(cell.population, load_task(config.task)))


def test_folders_are_named_after_recipe_and_zoo():
    assert PlainConfig().folder("bayesian", "mine") == Path("runs/bayesian-mine")
    config = StudyConfig(zoo=Path("runs/digits"))
    assert config.folder("learnability", "learnability-demo") == Path("runs/digits-demo")


def test_impossible_configs_are_refused(tmp_path):
    path = Path(cli.__file__).parent / "recipes" / "bayesian-small.yaml"
    for change, message in (
        ("records=99", "expected at most epochs"),
        ("asymmetries.w_asymmetric.kind=x", "asymmetries.w_asymmetric.kind: unknown asymmetry"),
        ("chains.asymmetries.w_asymmetric.kappas=1", "unknown option 'kappas'"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_config(Bayesian, path, [change])
    result = CliRunner().invoke(
        cli.main, ["study", "bayesian", "--zoo", "runs/x", "--out", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "unknown key 'zoo'" in result.output
