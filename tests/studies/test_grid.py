"""Cells are measured once, kept when they are done, and named by all that they depend on."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from studies.common import grid
from studies.common.grid import Cell, run_grid

MEASURED: list[int] = []


@dataclass(frozen=True)
class Asked:
    zoo: Path
    number: int
    sizes: tuple[int, ...] = (1, 2)


def square(asked: Asked) -> pd.DataFrame:
    if asked.number < 0:
        raise ValueError("expected a number of at least 0")
    MEASURED.append(asked.number)
    return pd.DataFrame({"number": [asked.number], "square": [asked.number**2]})


@pytest.fixture(autouse=True)
def _nothing_measured():
    MEASURED.clear()


def asked(*numbers):
    return [Asked(Path("zoo"), number) for number in numbers]


def run(folder, *numbers, workers=1):
    return run_grid(square, asked(*numbers), folder, name="squares", workers=workers, quiet=True)


def test_rows_come_in_order_and_cells_are_measured_once(tmp_path):
    assert run(tmp_path, 3, 1)["square"].tolist() == [9, 1]
    assert run(tmp_path, 1, 2, 3)["square"].tolist() == [1, 4, 9]
    assert MEASURED == [3, 1, 2]


def test_processes_give_the_same_rows(tmp_path):
    pd.testing.assert_frame_equal(
        run(tmp_path / "a", 1, 2, 3), run(tmp_path / "b", 1, 2, 3, workers=2)
    )


def test_what_is_done_stays_when_another_cell_fails(tmp_path):
    with pytest.raises(
        ValueError, match=r"Asked\(.*number=-1.*\): expected a number of at least 0"
    ):
        run(tmp_path, 5, -1)
    run(tmp_path, 5)
    assert MEASURED == [5]
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".parquet"]


def test_a_cell_is_named_by_what_it_asks_and_by_the_code_but_not_by_where_the_zoo_lies(tmp_path):
    cell = Cell(square, Asked(Path("zoo"), 1), tmp_path, "code")
    same = replace(cell, asked=Asked(Path("elsewhere"), 1))
    others = [
        replace(cell, asked=Asked(Path("zoo"), 1, (2, 1))),
        replace(cell, code="newer"),
        replace(cell, measure=run),
    ]
    assert same.path == cell.path
    assert len({cell.path, *(other.path for other in others)}) == 4


def test_other_code_is_measured_anew(tmp_path, monkeypatch):
    run(tmp_path, 1)
    monkeypatch.setattr(grid, "code_fingerprint", lambda *_: "another version")
    run(tmp_path, 1)
    assert MEASURED == [1, 1]


def test_cells_depend_on_the_modules_that_are_named(tmp_path):
    for modules in ((), ("studies.common.page",)):
        run_grid(square, asked(1), tmp_path, name="squares", modules=modules, workers=1, quiet=True)
    assert MEASURED == [1, 1]


def test_the_fingerprint_reads_the_source_of_packages_and_modules():
    module = "tests.studies.test_grid"
    both = [grid.code_fingerprint("zoo", module), grid.code_fingerprint("zoo", module)]
    assert (
        len({*both, grid.code_fingerprint("zoo"), grid.code_fingerprint("data_gen", module)}) == 3
    )
