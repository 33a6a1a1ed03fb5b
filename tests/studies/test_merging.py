"""Averages and ensembles against modules, alignment to the mean, groups of networks, and the study
on a small zoo.
"""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from data_gen.config import Job
from data_gen.generation import generate
from studies.common import runner
from studies.common.alignments import Matching, align_to_mean, moved_share
from studies.common.evaluation import Part, evaluate
from studies.merging import study as merging
from studies.merging.study import (
    STUDY,
    Merging,
    cells_of,
    draw_groups,
    evaluate_ensemble,
    merge_all,
)
from tests.reference.zoo_modules import MODULES
from zoo.architectures import build_architecture
from zoo.params import flatten, stack
from zoo.store.zoo import load
from zoo.symmetry.action import act, sample
from zoo.symmetry.alignment import align

OPTIONS, SHAPE = {"hidden": [8, 7], "activation": "gelu", "norm": "layer"}, (1, 4, 4)


run, format_study, write_report = (
    functools.partial(function, STUDY)
    for function in (runner.run, runner.format_study, runner.write_report)
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def network():
    return build_architecture("mlp", OPTIONS, SHAPE, 3).to("cpu", torch.float64)


@pytest.fixture
def part():
    return Part(
        torch.randn(30, *SHAPE, generator=generator(1), dtype=torch.float64), torch.arange(30) % 3
    )


def draws(network, count):
    return [{n: t.double() for n, t in network.init(generator(i)).items()} for i in range(count)]


def matching(network, part):
    return Matching(network, part, num_restarts=1, seed=0)


def test_the_average_of_identical_networks_is_the_network(network, part):
    one = draws(network, 1)[0]
    for way, merged in merge_all(network.space, stack([one] * 4), matching(network, part)).items():
        assert all(torch.equal(merged[n][0], one[n]) for n in one), way


def test_disguises_of_a_network_are_merged_into_it_after_alignment_only(network, part):
    one, space = draws(network, 1)[0], network.space
    elements = [replace(sample(space, generator(i)), scales={}) for i in range(5)]
    merged = merge_all(
        space, stack([act(space, e, one) for e in elements]), matching(network, part)
    )
    logits = network.apply(one, part.x)
    change = {
        way: float((network.apply({n: t[0] for n, t in p.items()}, part.x) - logits).abs().max())
        for way, p in merged.items()
    }
    assert change.pop("average") > 1e-2
    assert max(change.values()) < 1e-12


def test_an_average_equals_that_of_modules(network, part):
    networks = draws(network, 3)
    merged = merge_all(network.space, stack(networks), matching(network, part))["average"]
    twin = MODULES["mlp"](SHAPE, 3, **OPTIONS).double()
    twin.load_state_dict({n: sum(p[n] for p in networks) / 3 for n in networks[0]})
    loss, accuracy = evaluate(network, merged, part)
    with torch.no_grad():
        assert loss[0] == pytest.approx(float(F.cross_entropy(twin(part.x), part.y)), abs=1e-12)
        assert accuracy[0] == float((twin(part.x).argmax(1) == part.y).double().mean())


def test_an_ensemble_by_hand(network, part):
    networks = draws(network, 3)
    probabilities = torch.zeros(30, 3, dtype=torch.float64)
    for params in networks:
        twin = MODULES["mlp"](SHAPE, 3, **OPTIONS).double()
        twin.load_state_dict(params)
        with torch.no_grad():
            probabilities += twin(part.x).softmax(1) / 3
    loss, accuracy = evaluate_ensemble(network, stack(networks), part)
    assert loss[0] == pytest.approx(
        float(-probabilities[torch.arange(30), part.y].log().mean()), abs=1e-12
    )
    assert accuracy[0] == float((probabilities.argmax(1) == part.y).double().mean())


def spread(space, networks):
    """Mean squared distance to the mean."""
    flat = torch.stack([flatten(space, params) for params in networks])
    return float((flat - flat.mean(0)).square().sum())


def test_alignment_to_the_mean_brings_networks_closer_than_alignment_to_one_and_keeps_functions(
    network, part
):
    networks, space = draws(network, 4), network.space
    first = merge_all(space, stack(networks), matching(network, part))["aligned to first"]
    moved = align_to_mean(space, networks, matching(network, part))
    flat = torch.stack([flatten(space, params) for params in networks])
    # |x|^2 is the same for all permutations: the farther the mean from 0, the closer the networks
    to_first = float(flat.square().sum() - 4 * flatten(space, first).square().sum())
    assert spread(space, moved) < to_first < spread(space, networks)
    for before, after in zip(networks, moved, strict=True):
        torch.testing.assert_close(
            network.apply(before, part.x), network.apply(after, part.x), rtol=0, atol=1e-12
        )
    for i, one in enumerate(moved):
        others = stack([params for j, params in enumerate(moved) if j != i])
        assert moved_share(space, align(space, one, {n: t.mean(0) for n, t in others.items()})) == 0


def test_groups_share_no_network_as_long_as_there_are_enough():
    groups = draw_groups(np.zeros(11, dtype=np.int64), 3, 3, seed=0)
    assert [len(group) for group in groups] == [3, 3, 3]
    assert len({i for group in groups for i in group}) == 9
    more = draw_groups(np.zeros(11, dtype=np.int64), 3, 7, seed=0)
    assert more[:3] == groups
    assert len({i for group in more[3:6] for i in group}) == 9
    assert all(len(set(group)) == 3 for group in more)
    assert draw_groups(np.zeros(11, dtype=np.int64), 3, 3, seed=1) != groups


def test_groups_have_networks_of_different_parts():
    part = np.array([0, 1, 2, 3] * 4)
    for group in draw_groups(part, 4, 8, seed=0):
        assert sorted(part[group].tolist()) == [0, 1, 2, 3]
    for group in draw_groups(part, 8, 4, seed=0):
        assert sorted(part[group].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    mlp = {"name": "mlp", "hidden": [6]}
    job = Job.model_validate(
        {
            "task": {"name": "digits", "train_size": 200, "test_size": 80},
            "populations": {
                "standard": {"architecture": mlp},
                "w_asymmetric": {"architecture": mlp, "asymmetry": {"kind": "w"}},
            },
            "hyperparameters": {"steps": 10, "lr": 0.2, "train_parts": {"choice": [1, 2]}},
            "count": 12,
        }
    )
    folder = generate(job, tmp_path_factory.mktemp("zoos") / "small", compile=False, quiet=True)
    config = Merging(zoo=folder, sizes=(2, 3), groups=2)
    out = tmp_path_factory.mktemp("studies") / "merging"
    return config, run(config, out, quiet=True), out


def test_single_networks_are_as_the_zoo_measured_them(study):
    """Each row is the mean of one pair or triple, by brute force, and no network comes twice."""
    config, rows, _ = study
    singles, metrics = rows.loc[rows["way"] == "single"], ["test_loss", "test_accuracy"]
    assert len(singles) == 2 * 2 * 2 * 2
    for (name, parts, size), measured in singles.groupby(["population", "train_parts", "size"]):
        population = load(config.zoo)[name]
        table = pd.concat([population.table(split) for split in population.splits])
        table = table.loc[table["train_parts"] == parts].set_index("network_id")
        groups = []
        for values in measured[metrics].to_numpy():
            fitting = [
                group
                for group in itertools.combinations(table.index, size)
                if np.abs(table.loc[list(group), metrics].mean() - values).max() < 1e-6
            ]
            assert len(fitting) == 1
            groups.append(fitting[0])
        if 2 * size <= len(table):
            assert not set(groups[0]) & set(groups[1])


def test_ways_groups_and_whether_they_are_disjoint(study):
    config, rows, out = study
    ways = {name: set(here["way"]) for name, here in rows.groupby("population")}
    both = {"average", "single", "ensemble"}
    assert ways == {
        "standard": both | {"aligned to first", "aligned to mean"},
        "w_asymmetric": both,
    }
    table = pd.concat(
        [load(config.zoo)["standard"].table(split) for split in ("train", "validation", "test")]
    )
    for (parts, size), here in rows.groupby(["train_parts", "size"]):
        assert (here["disjoint"] == (2 * size <= int((table["train_parts"] == parts).sum()))).all()
        assert set(here["group"]) == {0, 1}
    pd.testing.assert_frame_equal(rows, pd.read_parquet(out / "rows.parquet"))


def test_the_loss_of_an_ensemble_is_at_most_the_mean_of_its_members(study):
    wide = study[1].pivot(
        index=["population", "train_parts", "size", "group"], columns="way", values="test_loss"
    )
    assert (wide["ensemble"] <= wide["single"] + 1e-12).all()


def test_a_second_run_measures_nothing(study, monkeypatch):
    config, rows, out = study

    @functools.wraps(merging.measure)
    def refuse(cell):
        pytest.fail(f"measured again: {cell}")

    monkeypatch.setattr(merging, "measure", refuse)
    pd.testing.assert_frame_equal(run(config, out, quiet=True), rows)


def test_the_table_and_the_report(study):
    config, rows, out = study
    assert "aligned to mean" in format_study(config, rows, out)
    html = write_report(config, rows, out).read_text(encoding="utf-8")
    assert html.count("<figure>") == 2


def test_what_cannot_be_measured_is_refused(study):
    config = study[0]
    with pytest.raises(
        ValueError, match=r"population 'standard': 12 networks, not enough for sizes \[16\]"
    ):
        cells_of(config.model_copy(update={"sizes": (16,)}), load(config.zoo)["standard"])
    with pytest.raises(ValidationError, match=r"expected numbers of at least 2, found \[1, 2\]"):
        Merging(zoo=config.zoo, sizes=(1, 2))
