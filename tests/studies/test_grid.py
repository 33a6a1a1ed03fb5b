"""Cells are measured once, kept when they are done, and named by all that they depend on."""

import multiprocessing
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info

from data_gen.executors.executor import InThisProcess
from data_gen.executors.local import LocalProcesses
from studies.common import grid
from studies.common.grid import PLACE, Measurement, plan_cells, run_grid
from studies.common.runner import HERE

MEASURED: list[int] = []


@dataclass(frozen=True)
class NumberCell:
    zoo: Path = field(metadata=PLACE)
    number: int
    sizes: tuple[int, ...] = (1, 2)

    @property
    def name(self) -> str:
        return f"number {self.number}"


def square(cell: NumberCell) -> pd.DataFrame:
    if cell.number < 0:
        raise ValueError("expected a number of at least 0")
    MEASURED.append(cell.number)
    return pd.DataFrame({"number": [cell.number], "square": [cell.number**2]})


def sleep_long(cell: NumberCell) -> pd.DataFrame:
    if cell.number == 300:
        time.sleep(300)
    return square(cell)


def divide(cell: NumberCell) -> pd.DataFrame:
    return pd.DataFrame({"number": [cell.number / 0]})


def interrupted_at_zero(cell: NumberCell) -> pd.DataFrame:
    if cell.number == 0:
        raise KeyboardInterrupt
    return square(cell)


def num_threads() -> int:
    """Most threads of a pool of a library."""
    return max(pool["num_threads"] for pool in threadpool_info())


def count_threads(_: NumberCell) -> pd.DataFrame:
    return pd.DataFrame({"torch": [torch.get_num_threads()], "pools": [num_threads()]})


def halve(cell: NumberCell, squares: pd.DataFrame) -> pd.DataFrame:
    return squares.assign(half=squares["square"] / 2, of=cell.number)


@pytest.fixture(autouse=True)
def _nothing_measured():
    MEASURED.clear()


def cells(*numbers):
    return [NumberCell(Path("zoo"), number) for number in numbers]


def run(folder, *numbers, executor=HERE, measure=square):
    planned = plan_cells(measure, cells(*numbers), folder)
    return run_grid(planned, name="squares", executor=executor, quiet=True)


def test_rows_come_in_order_and_cells_are_measured_once(tmp_path):
    assert run(tmp_path, 3, 1)["square"].tolist() == [9, 1]
    assert run(tmp_path, 1, 2, 3)["square"].tolist() == [1, 4, 9]
    assert MEASURED == [3, 1, 2]


def test_processes_give_the_same_rows(tmp_path):
    rows = run(tmp_path / "here", 1, 2, 3)
    for workers in (1, 2):
        there = run(tmp_path / str(workers), 1, 2, 3, executor=LocalProcesses(workers))
        pd.testing.assert_frame_equal(there, rows)


@pytest.mark.parametrize("executor", [InThisProcess(2), LocalProcesses(1, 2)])
def test_no_pool_has_more_threads_than_the_executor_says(tmp_path, executor):
    before = torch.get_num_threads(), num_threads()
    rows = run(tmp_path, 1, executor=executor, measure=count_threads)
    assert (rows["torch"].item(), rows["pools"].item()) == (2, 2)
    assert (torch.get_num_threads(), num_threads()) == before


def test_what_is_done_stays_when_another_cell_fails(tmp_path):
    with pytest.raises(ValueError, match=r"^number -1: expected a number of at least 0$"):
        run(tmp_path, 5, -1)
    run(tmp_path, 5)
    assert MEASURED == [5]
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".parquet"]


def test_the_first_cell_that_fails_ends_the_processes_of_all_at_once(tmp_path):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"^number -1: expected a number of at least 0$"):
        run(tmp_path, 300, 5, -1, executor=LocalProcesses(2), measure=sleep_long)
    assert multiprocessing.active_children() == []
    assert time.perf_counter() - start < 60
    assert run(tmp_path, 5, measure=sleep_long)["square"].tolist() == [25]
    assert MEASURED == [], "it was kept by its process"


@pytest.mark.parametrize("executor", [HERE, LocalProcesses(1)], ids=["here", "local"])
def test_an_error_of_the_code_names_the_cell_and_keeps_its_trace(tmp_path, executor):
    with pytest.raises(RuntimeError, match=r"^number 1: ZeroDivisionError: ") as caught:
        run(tmp_path, 1, executor=executor, measure=divide)
    assert "in divide" in caught.value.__notes__[0]


def test_ctrl_c_keeps_what_is_done(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 5, 0, 6, measure=interrupted_at_zero)
    run(tmp_path, 5, measure=interrupted_at_zero)
    assert MEASURED == [5]
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".parquet"]


def test_a_cell_is_named_by_what_it_asks_and_by_the_code_but_not_by_where_the_zoo_lies(tmp_path):
    one = Measurement(square, NumberCell(Path("zoo"), 1), tmp_path, "code")
    same = replace(one, cell=NumberCell(Path("elsewhere"), 1))
    others = [
        replace(one, cell=NumberCell(Path("zoo"), 1, (2, 1))),
        replace(one, code="newer"),
        replace(one, measure=run),
        replace(one, needs=(same,)),
    ]
    assert same.path == one.path
    assert len({one.path, *(other.path for other in others)}) == 5


def test_what_a_cell_needs_is_measured_first_and_once(tmp_path):
    squares = plan_cells(square, cells(3, 4), tmp_path)
    pairs = zip(cells(3, 4), squares, strict=True)
    halves = [Measurement(halve, cell, tmp_path, "code", needs=(one,)) for cell, one in pairs]
    rows = run_grid(halves, name="halves", executor=HERE, quiet=True)
    assert rows["half"].tolist() == [4.5, 8.0]
    assert MEASURED == [3, 4]
    newer = [replace(half, code="newer") for half in halves]
    run_grid(newer, name="halves", executor=HERE, quiet=True)
    assert MEASURED == [3, 4], "what it needs is there already"
    squares[0].path.unlink()
    run_grid(halves, name="halves", executor=HERE, quiet=True)
    assert MEASURED == [3, 4, 3]


def test_the_most_expensive_cells_come_first_and_rows_in_their_order(tmp_path):
    planned = [
        replace(one, cost=one.cell.number) for one in plan_cells(square, cells(1, 3, 2), tmp_path)
    ]
    assert run_grid(planned, name="s", executor=HERE, quiet=True)["number"].tolist() == [1, 3, 2]
    assert MEASURED == [3, 2, 1]


def test_what_other_processes_cannot_do_is_refused_there_only(tmp_path):
    planned = [
        replace(one, only_here="stay here") for one in plan_cells(square, cells(1, 2), tmp_path)
    ]
    with pytest.raises(ValueError, match="stay here"):
        run_grid(planned, name="s", executor=LocalProcesses(2), quiet=True)
    assert len(run_grid(planned, name="s", executor=HERE, quiet=True)) == 2


def test_other_code_is_measured_anew(tmp_path, monkeypatch):
    run(tmp_path, 1)
    monkeypatch.setattr(grid, "code_fingerprint", lambda *_: "another version")
    run(tmp_path, 1)
    assert MEASURED == [1, 1]


def test_cells_depend_on_the_modules_that_are_named(tmp_path):
    for modules in ((), ("studies.common.page",)):
        planned = plan_cells(square, cells(1), tmp_path, modules)
        run_grid(planned, name="squares", executor=HERE, quiet=True)
    assert MEASURED == [1, 1]


def test_the_fingerprint_reads_the_source_of_packages_and_modules():
    module = "tests.studies.test_grid"
    both = [grid.code_fingerprint("zoo", module), grid.code_fingerprint("zoo", module)]
    assert (
        len({*both, grid.code_fingerprint("zoo"), grid.code_fingerprint("data_gen", module)}) == 3
    )
