"""The card says what the zoo holds, and how to make it again.

What a manifest says cannot break out of its place.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import zoo
from data_gen.config import load_job
from tests.zoo.written import JOB, write_zoo
from zoo.sharing.card import render_card
from zoo.sharing.histogram import histogram_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("zoos") / "written")


def written(folder, **changes):
    manifest = zoo.load(folder).manifest
    return render_card(
        folder, manifest.model_copy(update={"config": {**manifest.config, **changes}})
    )


def test_it_shows_populations_hyperparameters_and_accuracies(folder):
    text = written(folder)
    shards = sum(path.stat().st_size for path in folder.rglob("*.h5")) / 1e6
    for line in (
        "Each population holds 74 networks (40 train, 13 validation, 21 test).",
        '| `standard` | `{"name": "mlp", "hidden": [6, 5]}` | standard | 485 | 485 | 2 |',
        '| `w_asymmetric` | `{"name": "mlp", "hidden": [6, 5]}` | `{"kind": "w", "n_fix": 2}` | '
        "485 | 443 | 2 |",
        '| `lr` | `{"log_uniform": [0.001, 1.0]}` | 0.25 | 0.6199 | 1 |',
        '| `optimizer` | `{"choice": ["sgd", "adamw"]}` | `{"adamw": 37, "sgd": 37}` | | |',
        '| `steps` | `{"fixed": 5}` | 5 | 5 | 5 |',
        f"Licence: apache-2.0. {shards:.1f} MB.",
        "standard: 72 networks\n0.25 to 0.30 ",
        "Made with: python 3.",
    ):
        assert line in text
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["license"], header["size_categories"]) == ("apache-2.0", ["n<1K"])
    assert text == written(folder)


def test_its_job_makes_the_same_zoo(folder, tmp_path):
    text = written(folder)
    assert "generate-zoo job.yaml --out runs/again" in text
    (tmp_path / "job.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    job = load_job(str(tmp_path / "job.yaml"))
    assert job.sha256 == JOB.sha256
    assert list(job.populations) == list(JOB.populations)
    assert list(job.populations["standard"].architecture) == ["name", "hidden"]


def test_what_stands_in_two_places_is_written_twice(folder):
    shared = [0.25, 0.5]
    text = written(
        folder, hyperparameters={"lr": {"choice": shared}, "momentum": {"choice": shared}}
    )
    assert text == written(
        folder, hyperparameters={"lr": {"choice": [0.25, 0.5]}, "momentum": {"choice": [0.25, 0.5]}}
    )
    assert "&id" not in text


def test_text_of_strangers_stays_where_it_is(folder):
    evil = "x`| |\n```\n---\n<script>{0.__class__}%s"
    text = written(folder, task={"name": evil}, hyperparameters={"lr": {"choice": [evil]}})
    fence = text.split("## Make it again")[1].split("yaml\n")[0].split("\n")[-1]
    assert fence == "````"
    assert yaml.safe_load(text.split(f"{fence}yaml\n")[1].split(fence)[0])["task"] == {"name": evil}
    table = text.split("## Make it again")[0]
    assert "<script>" not in table
    assert len([line for line in table.splitlines() if line.startswith("```")]) == 6
    assert all(
        line.count("|") == 6
        for line in table.split("## Hyperparameters")[1].splitlines()
        if line.startswith("|")
    )


def test_a_zoo_that_no_job_made_shows_none(folder):
    manifest = zoo.load(folder).manifest.model_copy(update={"config": {"source": "elsewhere"}})
    assert "Make it again" not in render_card(folder, manifest)


def test_a_histogram_counts_what_numpy_counts():
    values = np.random.default_rng(0).normal(size=500)
    lines = histogram_lines(np.append(values, [np.nan, np.inf]), bins=7, width=50)
    assert [int(line.split()[-1]) for line in lines] == np.histogram(values, 7)[0].tolist()
    assert max(map(len, lines)) <= 50
    lengths = [line.count("█") for line in lines]
    counts = np.histogram(values, 7)[0]
    assert np.abs(np.array(lengths) - counts / counts.max() * max(lengths)).max() <= 1


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.04, 1.36), (-3e-7, 4e-7), (1e6, 1e6 + 3), (-1e9, 1e9), (5.0, 5.0)]
)
def test_edges_are_told_apart_and_right(low, high):
    values = np.linspace(low, high, 50)
    edges = np.histogram(values, 10)[1]
    lines = histogram_lines(values, bins=10)
    printed = [tuple(map(float, line.split()[:3:2])) for line in lines]
    step = edges[1] - edges[0]
    np.testing.assert_allclose([pair[0] for pair in printed], edges[:-1], atol=step / 10)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(printed))
    assert len(set(printed)) == 10


def test_histograms_of_nothing_of_one_and_of_a_narrow_terminal():
    assert histogram_lines(np.array([np.nan])) == ["no finite value"]
    assert (
        sum(int(line.split()[-1]) for line in histogram_lines(np.array([0.5]), bins=3, width=5))
        == 1
    )
    assert histogram_lines(np.array([0.1, 0.9, 0.9]), 2, 24, (0.0, 1.0), blocks=False) == [
        "0.0 to 0.5 ######      1",
        "0.5 to 1.0 ########### 2",
    ]
    few = histogram_lines(np.array([0.1] + [0.9] * 5000), 2, 24, (0.0, 1.0))
    assert "▏" in few[0], "one network of thousands is still seen"


def test_the_readme_of_a_written_manifest_needs_no_zoo_json(folder, tmp_path):
    manifest = zoo.load(folder).manifest
    text = render_card(folder, manifest)
    (folder / "zoo.json").rename(tmp_path / "zoo.json")
    try:
        assert render_card(folder, manifest) == text
    finally:
        (tmp_path / "zoo.json").rename(folder / "zoo.json")
    assert json.loads(Path(folder / "zoo.json").read_text())["version"] == 2
