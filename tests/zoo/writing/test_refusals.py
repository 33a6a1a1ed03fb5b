"""What is no zoo is refused before anything is lost, by the name of what is wrong."""

import numpy as np
import pandas as pd
import pytest
import torch

import zoo
from tests.zoo.writing.networks import MLP, Tied, state_dicts, table, trained
from zoo.store.entries import ColumnEntry


def given(networks=None, rows=None, model=MLP):
    networks = state_dicts(8) if networks is None else networks
    return {"a": (model, networks, table(8) if rows is None else rows)}


def changed(at, **tensors):
    """Networks of which one has other tensors."""
    networks = state_dicts(8)
    networks[at] = {n: t for n, t in (networks[at] | tensors).items() if t is not None}
    return networks


WEIGHT = {"layers.0.weight": torch.zeros(3, 3)}
BAD_NETWORKS = {
    "too few": (state_dicts(7), "population 'a': expected 8 networks, .* got 7"),
    "too many": (state_dicts(9), "expected 8 networks, .* got 9 or more"),
    "too few in an iterator": (lambda: iter(state_dicts(7)), "expected 8 networks, .* got 7"),
    "too many in an iterator": (lambda: iter(state_dicts(9)), "expected 8 networks, .* got 9"),
    "no state dict": ([*state_dicts(7), 3], "network 7: expected a state dict.*got int"),
    "a module": ([*state_dicts(7), Tied()], "network 7: .*take its state_dict"),
    "another shape": (
        changed(2, **WEIGHT),
        r"network 2, 'layers.0.weight': expected shape \[4, 6\], got \[3, 3\]",
    ),
    "a tensor missing": (
        changed(3, **{"layers.0.bias": None}),
        r"network 3: missing \['layers.0.bias'\]",
    ),
    "a tensor too many": (changed(3, more=torch.zeros(1)), r"network 3: .*unknown \['more'\]"),
    "NaN": (
        changed(4, **{"layers.1.bias": torch.tensor([0.0, np.nan])}),
        "network 4, 'layers.1.bias': expected finite entries",
    ),
    "whole numbers": (
        changed(5, **{"layers.1.bias": torch.zeros(2, dtype=torch.int64)}),
        "network 5, 'layers.1.bias': expected a dense tensor",
    ),
    "one network in place of many": (state_dicts(1)[0], "got tensors of one network"),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_networks_that_do_not_fit(case, tmp_path):
    networks, message = BAD_NETWORKS[case]
    networks = networks() if callable(networks) else networks
    with pytest.raises(ValueError, match=message):
        zoo.write(tmp_path / "z", given(networks))
    assert not (tmp_path / "z" / "zoo.json").exists()


BAD_TABLES = {
    "empty": ([], {}, "one row a network, got none"),
    "ids": (table(8).assign(network_id=1), {}, "'network_id', which symzoo counts itself"),
    "mixed": ([{"x": 1}] * 7 + [{"x": "one"}], {}, "column 'x', row 0: expected numbers, texts"),
    "infinite": ([{"x": np.inf}] * 8, {}, "column 'x': values that are not finite"),
    "a name with a space": ([{"the x": 1}] * 8, {}, "column 'the x'"),
    "a name of a tensor": ([{"layers.0.bias": 1}] * 8, {}, "is a column and a tensor"),
    "two columns of a name": (
        pd.DataFrame(np.zeros((8, 2)), columns=["x", "x"]),
        {},
        "two columns are named 'x'",
    ),
    "a role of no column": (table(8), {"roles": {"rate": "hyperparameter"}}, "no columns"),
    "no role": (table(8), {"roles": {"lr": "parameter"}}, "roles"),
    "a metric of texts": (table(8), {"roles": {"optimizer": "metric"}}, "column 'optimizer'"),
    "a value out of range": (
        table(8),
        {"roles": {"lr": ColumnEntry(role="info", dtype="float64", range=(0, 0.5))}},
        "column 'lr': values that are not finite, or not from 0 to 0.5",
    ),
    "texts that should be numbers": (
        table(8),
        {"roles": {"optimizer": ColumnEntry(role="info", dtype="float64")}},
        "column 'optimizer': expected values of type float64",
    ),
    "shares that do not sum to 1": (table(8), {"split": (0.5, 0.5, 0.5)}, "sum to 1"),
    "an unknown split": (table(8), {"split": {"dev": 1.0}}, r"no splits \['dev'\]"),
    "no column of the split": (table(8), {"split": "part"}, "split: no column 'part'"),
    "a split that is none": (
        table(8).assign(part="dev"),
        {"split": "part"},
        "column 'part', row 0: expected one of .*found 'dev'",
    ),
    "two groups": (
        table(8),
        {"roles": {"run": "group", "epochs": "group"}},
        "at most one column of role 'group'",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_that_do_not_fit(case, tmp_path, unchecked):
    rows, options, message = BAD_TABLES[case]
    with pytest.raises(ValueError, match=message):
        zoo.write(tmp_path / "z", given(rows=rows), **options)
    assert not (tmp_path / "z" / "zoo.json").exists()


def test_a_module_needs_inputs_to_be_traced_with(tmp_path):
    with pytest.raises(ValueError, match="expected example_inputs"):
        zoo.write(tmp_path / "z", given(model=Tied()))


def test_tied_tensors_that_differ_and_other_buffers_are_refused(tmp_path):
    state = {name: tensor.clone() for name, tensor in trained(0).state_dict().items()}
    for name, message in (
        ("again.weight", "'again.weight' and 'last.weight' are one tensor and differ"),
        ("scale", "the buffer 'scale' is not that of the module"),
    ):
        wrong = state | {name: state[name] + 1}
        content = {"a": (trained(0), [wrong], [{"x": 1}])}
        with pytest.raises(ValueError, match=message):
            zoo.write(tmp_path / name, content, split=(1, 0, 0), example_inputs=torch.randn(4, 3))


def test_architectures_of_several_inputs_are_no_zoo(tmp_path):
    other = zoo.architectures.build_architecture("mlp", {"hidden": [4]}, (5,), 2)
    populations = given() | {"b": (other, state_dicts(8, other), table(8))}
    with pytest.raises(ValueError, match="several shapes of inputs"):
        zoo.write(tmp_path / "z", populations)


def test_names_of_populations_are_checked_first(tmp_path):
    with pytest.raises(ValueError, match="population name 'A b'"):
        zoo.write(tmp_path / "z", {"A b": given()["a"]})
