"""Which networks a metanet learns from: order, nesting, diverged networks, errors."""

import numpy as np
import pytest
import torch

from metanet import Metanet
from metanet.inputs.dataset import read_examples
from metanet.testing import random_population
from zoo.store.entries import ColumnEntry
from zoo.views import in_memory, view

POPULATION = random_population(sizes=(20, 10, 10))
TABLE = POPULATION.table("train")


def with_table(table):
    """The population with another table of the training networks."""
    return view(
        POPULATION, table=lambda split: table if split == "train" else POPULATION.table(split)
    )


def changed(**columns):
    """The population with some entries of its table replaced: column=(rows, values)."""
    table = TABLE.copy()
    for column, (index, values) in columns.items():
        table.loc[index, column] = values
    return with_table(table)


def test_subsets_are_nested_and_in_network_order():
    order = np.random.default_rng(0).permutation(20)
    params = {
        name: tensor[torch.from_numpy(order)] for name, tensor in POPULATION.params("train").items()
    }
    table = TABLE.iloc[order].reset_index(drop=True)
    shuffled = in_memory("shuffled", POPULATION.space, params, table, {"train": 20})
    for population in (POPULATION, shuffled):
        for count in (5, 12, None):
            examples = read_examples(population, "train", "test_accuracy", "params", count)
            assert examples.network_id.tolist() == list(range(count or 20))
            expected = POPULATION.params("train")["layers.1.weight"][: count or 20]
            assert torch.equal(examples.networks.parts[0].networks["layers.1.weight"], expected)
            np.testing.assert_array_equal(examples.y, TABLE["test_accuracy"][: count or 20])


def test_hyperparameters_hold_no_metrics():
    examples = read_examples(POPULATION, "test", "test_accuracy", "hyperparameters")
    assert list(examples.networks.parts[0].networks.columns) == ["lr", "optimizer"]


def test_diverged_networks_without_a_target_are_dropped_and_counted():
    population = changed(diverged=([3, 7], True), test_loss=([3, 7], [np.nan, np.inf]))
    with pytest.warns(
        UserWarning, match="dropped 2 of 20 networks that diverged and have no finite 'test_loss'"
    ):
        examples = read_examples(population, "train", "test_loss", "params")
    assert examples.num_dropped == 2
    assert 3 not in examples.network_id
    assert len(examples.y) == len(examples.networks.parts[0].networks["layers.0.bias"]) == 18
    with pytest.warns(UserWarning, match="dropped 1 of 5"):
        assert read_examples(population, "train", "test_loss", "params", 5).network_id.tolist() == [
            0,
            1,
            2,
            4,
        ]
    with pytest.warns(UserWarning, match="dropped"):
        assert Metanet("gbm", target="test_loss").fit(population).num_dropped_ == 2


def test_a_diverged_network_with_a_target_is_kept():
    assert len(read_examples(changed(diverged=([3], True)), "train", "test_loss", "params")) == 20


def test_nan_labels_of_networks_that_did_not_diverge_are_an_error():
    population = changed(test_loss=([2, 5], np.nan))
    says = (
        r"'standard', split 'train': target 'test_loss' is not finite in 2 of 20 networks "
        r".* \(network_id \[2, 5\]\)"
    )
    with pytest.raises(ValueError, match=says):
        Metanet("gbm", target="test_loss").fit(population)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (
            "accuracy",
            r"'standard', split 'train': target column 'accuracy' does not exist; "
            r".*'lr', 'test_accuracy', 'test_loss'",
        ),
        ("optimizer", "target column 'optimizer' is not numeric"),
    ],
)
def test_missing_targets_are_an_error(target, says):
    with pytest.raises(ValueError, match=says):
        Metanet("gbm", target=target).fit(POPULATION)


WHOLE = {"role": "metric", "dtype": "int64"}
KINDS = {
    "number of a metric": (WHOLE, None),
    "number of a hyperparameter": ({**WHOLE, "role": "hyperparameter"}, None),
    "other number": ({**WHOLE, "role": "info"}, None),
    "class": ({**WHOLE, "role": "target"}, r"holds labels \(role 'target'\)"),
    "group": ({**WHOLE, "role": "group"}, r"holds labels \(role 'group'\)"),
    "name": ({**WHOLE, "role": "id"}, r"holds labels \(role 'id'\)"),
    "unknown": (None, "holds whole numbers, which may be classes"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_not_learned_as_if_they_were_numbers(kind):
    entry, says = KINDS[kind]
    columns = {} if entry is None else {"label": ColumnEntry(**entry)}
    population = view(with_table(TABLE.assign(label=TABLE.index % 3)), columns=columns)
    if says is None:
        assert read_examples(population, "train", "label", "params").y.unique().tolist() == [
            0,
            1,
            2,
        ]
    else:
        with pytest.raises(ValueError, match=f"column 'label' {says}"):
            Metanet("gbm", target="label").fit(population)
    as_float = view(with_table(TABLE.assign(label=TABLE.index / 1.0)), columns=columns)
    assert len(read_examples(as_float, "train", "label", "params")) == 20


def test_truth_is_a_class():
    with pytest.raises(ValueError, match="'diverged' holds classes, true and false"):
        Metanet("gbm", target="diverged").fit(POPULATION)


@pytest.mark.parametrize("count", [0, -1, 21])
def test_numbers_of_networks_out_of_range_are_an_error(count):
    with pytest.raises(ValueError, match=f"(from 1 to 20, got|at least 1, found) {count}"):
        Metanet("gbm").fit(POPULATION, num_train=count)


def test_one_network_is_not_enough():
    with pytest.raises(ValueError, match="2 or more training networks, got 1"):
        Metanet("gbm").fit(POPULATION, num_train=1)


def test_no_network_left_is_an_error():
    population = changed(diverged=(range(20), True), test_loss=(range(20), np.nan))
    with pytest.raises(ValueError, match="no network has a finite 'test_loss'"):
        Metanet("gbm", target="test_loss").fit(population)
