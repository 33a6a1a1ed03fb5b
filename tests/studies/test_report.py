"""The table and the report.

Everything that was measured is in them, and the report stands alone.
"""

import base64
import functools
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from studies.common import runner
from studies.common.figures import STYLE, plain_ticks
from studies.common.page import figure, table_text
from studies.learnability.report import _curves, main_metanets
from studies.learnability.study import STUDY
from studies.learnability.summary import average_seeds, largest
from studies.learnability.tables import score_tables
from tests.studies.conftest import counting_fits
from tests.studies.test_learnability import config_for, run
from tests.studies.zoos import write_zoo

write_report = functools.partial(runner.write_report, STUDY)


def format_table(rows):
    return "\n\n".join(table_text(table) for table in score_tables(rows))


class Page(HTMLParser):
    """Tags that are opened and closed, addresses that are referred to, text that is shown."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def study(tiny_zoo, tmp_path_factory):
    config = config_for(tiny_zoo, metanets=["mlp", "gbm"], targets=["test_accuracy", "test_loss"])
    out = tmp_path_factory.mktemp("study")
    with counting_fits():
        return config, run(config, out, quiet=True), out


@pytest.fixture(scope="module")
def report(study):
    return write_report(*study)


@pytest.fixture(scope="module")
def page(report):
    return read_page(report)


def read_page(path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_report_stands_alone_and_its_figures_parse(page):
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert len(page.sources) == 2 * 4, "two learning curves, predictions and labels for each target"
    for source in page.sources:
        head, _, data = source.partition(",")
        assert head == "data:image/svg+xml;base64"
        assert (
            ElementTree.fromstring(base64.b64decode(data)).tag == "{http://www.w3.org/2000/svg}svg"
        )


def test_the_report_says_what_was_measured_and_how(study, page):
    _, rows, out = study
    text = "".join(page.text)
    for word in (
        "standard",
        "w_asymmetric",
        "hparams",
        "mlp",
        "gbm",
        "test accuracy",
        "test loss",
        "different labels",
    ):
        assert word in text
    for word in (
        f"symzoo study learnability --config {out}/config.yaml",
        "seeds 0, 1",
        "24 test networks",
        "Python",
        "cores",
    ):
        assert word in text
    chosen = rows.query(
        "target == 'test_loss' and metanet == 'mlp' and population == 'standard' and num_train == "
        "40"
    )
    assert f"{chosen['r2'].mean():.2f} [{chosen['r2_low'].mean():.2f}" in text
    assert "num_bootstrap: 20" in text


def test_names_are_escaped(tiny_zoo, tmp_path, counted_fit):
    zoo = tmp_path / "<script>alert(1)<"
    shutil.copytree(tiny_zoo, zoo)
    config = config_for(zoo, num_train=[10], seeds=[0])
    page = read_page(write_report(config, run(config, tmp_path, quiet=True), tmp_path))
    assert "<script>alert(1)<" in "".join(page.text)
    assert "script" not in page.tags


def test_the_same_rows_make_the_same_report(study, report):
    first = report.read_bytes()
    assert first == write_report(*study).read_bytes()


def test_unscored_and_dropped_networks_are_said(tmp_path, counted_fit):
    zoo = write_zoo(tmp_path / "zoo", shift=0.4, num_diverged=2)
    config = config_for(zoo, num_train=[10], match_minimum=30)
    rows = run(config, tmp_path, quiet=True).assign(num_dropped=3)
    table = format_table(rows)
    assert "n/a" in table
    assert "label-matched test networks, 30 needed" in table
    assert "standard 3, w_asymmetric 3" in table
    assert "30 needed" in "".join(read_page(write_report(config, rows, tmp_path)).text)


def test_the_table_compares_populations_at_the_largest_number_of_training_networks(study):
    _, rows, _ = study
    table = format_table(rows)
    blocks = table.split("\n\n")
    assert [line.split()[:2] for line in blocks[0].splitlines()[2:4]] == [
        ["hparams", "standard"],
        ["hparams", "w_asymmetric"],
    ]
    assert [line.split()[:2] for line in blocks[1].splitlines()] == [
        ["mlp", "standard"],
        ["mlp", "w_asymmetric"],
    ]
    chosen = rows.query(
        "target == 'test_accuracy' and metanet == 'mlp' and population == 'standard' and num_train "
        "== 40"
    )
    mean, low, high = (chosen[name].mean() for name in ("r2", "r2_low", "r2_high"))
    assert (
        f"{mean:.2f} [{low:.2f}, {high:.2f}] ±{chosen['r2'].std(ddof=1):.2f}"
        in blocks[1].splitlines()[0]
    )
    assert re.search(
        r"40 training and 24 test networks a population, 24 of the latter label-matched", table
    )
    assert "Predicting test_loss" in table


def test_one_seed_has_no_spread(study):
    _, rows, _ = study
    lines = largest(average_seeds(rows[rows["seed"] == 0]))
    assert lines["r2_seed_std"].isna().all()
    assert "±" not in format_table(rows[rows["seed"] == 0]).split("Mean over")[0]


def test_the_main_metanets_are_the_flat_one_and_the_best(study):
    _, rows, _ = study
    best = largest(average_seeds(rows)).query("target == 'test_accuracy'").copy()
    best["r2"] = best["metanet"].map({"hparams": 0.9, "mlp": 0.1, "gbm": 0.5})
    assert main_metanets(best) == ["mlp", "gbm"]
    best["r2"] = best["metanet"].map({"hparams": 0.9, "mlp": 0.7, "gbm": np.nan})
    assert main_metanets(best)[0] == "mlp"


def test_treated_metanets_have_learning_curves_where_there_are_several_sizes(study, monkeypatch):
    _, rows, _ = study
    drawn = []
    monkeypatch.setattr("studies.learnability.report.figure", lambda _, caption: caption)
    monkeypatch.setattr(
        "studies.learnability.report.plot_curves",
        lambda lines, *how: drawn.append((set(lines["metanet"]), set(lines["treatment"]), how)),
    )
    rows = rows.query("target == 'test_loss'")
    treated = [
        rows.query("metanet == 'mlp'").assign(treatment="augment"),
        rows.query("metanet == 'gbm' and num_train == 10").assign(treatment="align"),
    ]
    captions = _curves(average_seeds(pd.concat([rows, *treated])))
    everyone = {"hparams", "mlp", "gbm"}
    assert drawn == [
        (everyone, {"none"}, ("r2",)),
        (everyone, {"none"}, ("kendall_tau",)),
        ({"mlp"}, {"none", "augment"}, ("r2", "population", "treatment")),
    ]
    assert captions[-1].startswith("mlp: R² with each treatment")


@pytest.mark.parametrize("plain", [True, False])
def test_logarithmic_axes_have_plain_labels(plain):
    with rc_context(STYLE):
        drawn = Figure()
        panel = drawn.subplots()
        panel.plot([0.02, 0.18], [-40.0, -20.0])
        panel.set(xscale="log", yscale="symlog")
        if plain:
            plain_ticks(panel.xaxis)
            plain_ticks(panel.yaxis)
        page = figure(drawn, "a figure")
    svg = base64.b64decode(re.findall(r"base64,([^\"]+)", page)[0]).decode()
    assert ("mathdefault" in svg) == (not plain)
