"""Metanets and treatments of one's own reach worker processes.

A zoo that is not there is generated.
"""

import sys

import pytest
import yaml

from data_gen.executors.local import LocalProcesses
from metanet.inputs.treatments import TREATMENTS
from metanet.models.table import METANETS
from studies.common.runner import make_zoo
from studies.learnability.plan import plan_study
from studies.learnability.plugins import find_plugin, why_only_here
from tests.studies.test_cli import fail
from tests.studies.test_learnability import config_for, run

SPEC = """
from dataclasses import dataclass

from metanet.inputs.steps import Step
from metanet.models.gbm import StatisticsBoosting


def mine(spec, *, max_leaf_nodes: int = 15):
    return StatisticsBoosting(spec, max_leaf_nodes=max_leaf_nodes)


@dataclass(frozen=True)
class Halve(Step):
    by: float = 0.5

    def treat(self, spec, params):
        return {name: self.by * tensor for name, tensor in params.items()}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in a folder of its own, whose entries are in the tables."""
    path = tmp_path / "modules" / "my_metanets_for_a_test.py"
    path.parent.mkdir()
    path.write_text(SPEC)
    monkeypatch.syspath_prepend(str(path.parent))
    import my_metanets_for_a_test as plugins  # pyright: ignore[reportMissingImports]

    monkeypatch.setitem(METANETS, "mine", plugins.mine)
    monkeypatch.setitem(TREATMENTS, "halve", plugins.Halve)
    yield path
    del sys.modules["my_metanets_for_a_test"]


def test_entries_from_elsewhere_work_in_processes(module, tiny_zoo, tmp_path):
    settings = {
        "num_train": [20],
        "seeds": [0],
        "populations": ["standard"],
        "options": {"mine": {"epochs": 3}},
    }
    config = config_for(tiny_zoo, metanets=["mine"], treatments=["halve"], **settings)
    rows = run(config, tmp_path / "out", executor=LocalProcesses(2), quiet=True)
    assert rows[["metanet", "treatment"]].to_numpy().tolist() == [
        ["hparams", "none"],
        ["mine", "none"],
        ["mine", "halve"],
    ]


def test_the_code_of_such_an_entry_is_part_of_its_cells_only(module, tiny_zoo, tmp_path):
    config = config_for(tiny_zoo, metanets=["mine", "statnn"], treatments=["halve"])

    def keys():
        cells = [scored.cell for scored in plan_study(config, tmp_path)]
        return {
            (cell.fit.metanet, cell.treatment, cell.fit.num_train, cell.fit_key) for cell in cells
        }

    before = keys()
    module.write_text(SPEC + "\n# changed\n")
    kept = {key[:2] for key in before & keys()}
    assert kept == {("hparams", "none"), ("statnn", "none")}


def test_what_workers_cannot_find_is_refused_by_name(tiny_zoo, tmp_path, counted_fit, monkeypatch):
    def inside(spec):
        return METANETS["gbm"](spec)

    monkeypatch.setitem(METANETS, "inside", inside)
    config = config_for(tiny_zoo, metanets=["inside"])
    with pytest.raises(
        ValueError, match=r"metanet 'inside' cannot be found by worker processes.*\(--workers 0\)"
    ):
        run(config, tmp_path, executor=LocalProcesses(2), quiet=True)
    assert counted_fit.cells == []
    run(config, tmp_path, quiet=True)
    assert {cell.metanet for cell in counted_fit.cells} == {"hparams", "inside"}


def test_entries_of_this_package_are_no_plugins_but_a_new_one_under_their_name_is(monkeypatch):
    assert all(find_plugin("metanet", name) is None for name in METANETS)
    assert all(find_plugin("treatment", name) is None for name in TREATMENTS)
    monkeypatch.setitem(METANETS, "mlp", lambda spec: None)
    plugin = find_plugin("metanet", "mlp")
    assert plugin is not None
    assert "'mlp'" in why_only_here([plugin])


def test_a_zoo_that_is_not_there_is_generated_and_then_used_as_it_is(
    tmp_path, counted_fit, monkeypatch
):
    job = {
        "task": {"name": "digits"},
        "count": 12,
        "hyperparameters": {"steps": 1},
        "populations": {"standard": {"architecture": {"name": "mlp", "hidden": [4]}}},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(job))
    config = config_for(
        tmp_path / "runs" / "tiny", job=str(path), num_train=["all"], match_minimum=2
    )
    rows = run(config, tmp_path / "out", quiet=True)
    assert (rows["n_train"] == 6).all()
    path.unlink()
    make_zoo(config, quiet=True)
    assert len(run(config, tmp_path / "out", quiet=True)) == len(rows)


def test_without_a_job_a_zoo_must_be_there(tmp_path):
    assert "no such folder" in fail("study", "learnability", "--zoo", tmp_path / "none")
