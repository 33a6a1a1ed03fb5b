"""What tables and figures of studies share: rows by values, intervals as columns, panels."""

import math

import numpy as np
import pandas as pd
import pytest

from metanet.metrics import Estimate
from studies.common.figures import bar_lengths, draw_shares, lines_by, panels_by
from studies.common.intervals import (
    NOT_MEASURED,
    columns_of,
    estimate_of,
    interval_text,
    percentiles,
)
from studies.common.rows import numbers, span_text, split_by, where

ROWS = pd.DataFrame(
    {"kind": ["b", "a", "b", "a"], "part": [1, 1, 2, 1], "value": [3, 1, 2, 4], "on": True}
)


def test_rows_by_the_values_of_columns():
    assert where(ROWS, kind="a", part=1)["value"].tolist() == [1, 4]
    assert where(ROWS, on=False).empty
    largest = ROWS.groupby("kind")["value"].transform("max")
    assert where(ROWS, value=largest)["value"].tolist() == [3, 4]
    assert numbers(ROWS, "part").dtype == np.float64


def test_groups_come_as_they_appear():
    assert [(kind, len(rows)) for kind, rows in split_by(ROWS, "kind")] == [("b", 2), ("a", 2)]
    pairs = [names for names, _ in split_by(ROWS, ["kind", "part"])]
    assert pairs == [("b", 1), ("a", 1), ("b", 2)]


def test_a_span_is_one_number_if_all_are_the_same():
    assert (span_text(ROWS["value"]), span_text(ROWS["part"][:2])) == ("1 to 4", "1")


def test_an_estimate_survives_its_columns():
    estimate = Estimate(0.5, 0.25, 0.75)
    columns = columns_of("tau", estimate)
    assert list(columns) == ["tau", "tau_low", "tau_high"]
    assert estimate_of(columns, "tau") == estimate
    assert interval_text(estimate, "+.2f") == "+0.50 [+0.25, +0.75]"
    assert interval_text(NOT_MEASURED, ".2f") == "n/a"


def test_percentiles_are_those_of_the_resamples():
    estimate = percentiles(7, np.arange(41.0))
    assert estimate == pytest.approx((7, 1, 39))


def test_error_bars_never_have_negative_lengths():
    assert bar_lengths(np.array([1.0]), np.array([1.5]), np.array([3.0])).tolist() == [[0.0], [2.0]]


def test_a_panel_for_each_value_and_lines_numbered_alike():
    drawn, places = panels_by(ROWS, "kind", margin=0, height=1)
    assert [panel.get_title() for panel, _, _ in places] == ["b", "a"]
    assert len(drawn.axes) == 2
    lines = [(i, value, len(here)) for i, value, here in lines_by(places[1][2], "part", [2, 1])]
    assert lines == [(1, 1, 2)], "the panel has no line 0, and line 1 keeps its number"


def test_shares_rise_from_one_value_to_all():
    _, places = panels_by(ROWS, "on", margin=0, height=1)
    line = draw_shares(places[0][0], [3.0, 1.0], 0, label="two")
    assert np.asarray(line.get_xdata()).tolist() == [1.0, 3.0]
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 1.0]
    assert line.get_label() == "two"
    assert math.isclose(line.get_linewidth(), 1.4)
